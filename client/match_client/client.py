"""The client: a method for each request of the service."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from time import monotonic, sleep
from typing import Any, Self, TypeVar, overload
from urllib.parse import quote

from match_client.adds import Options, add_all, headers_of, new_key
from match_client.errors import ConnectionLost, ImageError, NotFound, TaskRunning, Unavailable
from match_client.results import (
    Batch,
    Collection,
    Comparison,
    Image,
    Matches,
    Metadata,
    Names,
    Outcome,
    Patched,
    Queue,
    Readiness,
    Retried,
    SearchOutcome,
    Task,
    Usage,
    similarity,
)
from match_client.searches import SearchQuery, search_all
from match_client.sources import ImageSource, NewImage, Url, read
from match_client.transport import READ_TIMEOUT_S, File, Request, Transport

Value = TypeVar("Value")
Ending = TypeVar("Ending", Task, Batch)

# The service's limits.
MAX_DELETES = 1000
MAX_IDS = 100
PAGE = 1000
PAGE_OF_IMAGES = 200
BATCHES_PAGE = 100
FIRST_POLL_S = 0.05
LONGEST_POLL_S = 2.0


class Match:
    """A client of a running Match; a context manager that closes its connections.

    `api_key` is needed where the service requires one. A request that got no answer, or 429 or 503, is sent again for
    `retry_for_s` seconds, with an idempotency key that keeps an add from being executed twice. `timeout_s` is how long
    it waits for a reply. `pause` sleeps between attempts; it may raise to end them. Threads may share a client.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        retry_for_s: float = 60.0,
        timeout_s: float = READ_TIMEOUT_S,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._transport = Transport(url, api_key=api_key, retry_for_s=retry_for_s, timeout_s=timeout_s, pause=pause)

    @property
    def url(self) -> str:
        """The service's URL."""
        return self._transport.url

    @property
    def transport(self) -> Transport:
        """The connections, for requests that the client has no method for."""
        return self._transport

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Adds and deletions.

    def add(
        self,
        image: ImageSource,
        filepath: str,
        *,
        metadata: Metadata | None = None,
        wait_s: float | None = None,
        callback_url: str | None = None,
        collection: str | None = None,
        idempotency_key: str | None = None,
    ) -> Task:
        """Add an image under a name, and return its task.

        With `wait_s` the call returns when the image is stored and searches find it, or after that time. Raises
        ImageError if the image cannot be fetched or read.
        """
        fields = _fields(filepath=filepath, callback_url=callback_url, collection=collection)
        if metadata is not None:
            fields["metadata"] = json.dumps(metadata)
        image_fields, files = _image(image)
        headers = headers_of(idempotency_key or new_key(), wait_s=wait_s)
        request = Request(method="POST", path="/add", form=fields | image_fields, files=files, headers=headers)
        return Task.from_json(self._transport.send(request).json["task"])

    def add_many(
        self,
        images: Iterable[NewImage],
        *,
        wait_s: float | None = None,
        callback_url: str | None = None,
        collection: str | None = None,
        batch: str | None = None,
    ) -> Iterator[Outcome]:
        """Add any number of images, and yield the outcome of each, in order.

        `images` is read as it is sent: memory holds 200 URLs or 8 MiB of files. An image that cannot be read or
        accepted has an outcome with `fail`, and the others are added. `wait_s` is only for files. Raises MatchError
        when the service accepts nothing for `retry_for_s`.

        All images are one batch, whose id each outcome has. `batch` is the id: a new one, or that of a batch to
        continue.
        """
        options = Options(collection=collection, callback_url=callback_url, wait_s=wait_s, batch=batch or new_key())
        yield from add_all(self._transport, images, options)

    def delete(self, filepaths: str | Iterable[str], *, collection: str | None = None) -> None:
        """Delete the images with these names; an unknown name is not an error."""
        names = [filepaths] if isinstance(filepaths, str) else filepaths
        for some in _batches(names, MAX_DELETES):
            form = {f"filepaths[{number}]": name for number, name in enumerate(some)}
            self._send("DELETE", "/delete", form | _fields(collection=collection))

    def delete_selected(
        self,
        *,
        filepath_prefix: str | None = None,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the service's name
        expect: int | None = None,
        collection: str | None = None,
    ) -> Task:
        """Delete all images of a folder or with these metadata, and return the task that does it.

        Raises Conflict if another number of images than `expect` is stored. The request is sent once: repeated, it
        would delete images that were added meanwhile. Needs a key with the scope admin where keys are required.
        """
        form = _fields(filepath_prefix=filepath_prefix, expect=expect, collection=collection) | _filters(filter)
        reply = self._transport.send_once(Request(method="DELETE", path="/delete", form=form))
        return Task.from_json(reply.json["task"])

    def count_selected(
        self,
        *,
        filepath_prefix: str | None = None,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the service's name
        collection: str | None = None,
    ) -> int:
        """Return the number of images that `delete_selected` would delete, with the same key."""
        form = _fields(filepath_prefix=filepath_prefix, dry_run=True, collection=collection) | _filters(filter)
        [number] = self._send("DELETE", "/delete", form)["result"]
        return int(number)

    def patch(self, filepath: str, metadata: Metadata | None, *, collection: str | None = None) -> Patched:
        """Change the metadata of an image by a JSON merge patch (RFC 7396); None removes them. Raises NotFound."""
        form = _fields(filepath=filepath, collection=collection) | {"metadata": json.dumps(metadata)}
        result = self._send("PATCH", "/images", form)["result"]
        return Patched(is_stored=bool(result), metadata=result[0]["metadata"] if result else None)

    # Searches.

    def search(
        self,
        image: ImageSource | None = None,
        *,
        filepath: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
        min_score: float | None = None,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the service's name
        all_orientations: bool | None = None,
        mode: str | None = None,
        collection: str | None = None,
    ) -> Matches:
        """Return the stored images that are similar to an image, or to the stored image `filepath`."""
        image_fields, files = _query(image, filepath)
        fields = _fields(
            limit=limit,
            offset=offset,
            min_score=min_score,
            all_orientations=all_orientations,
            mode=mode,
            collection=collection,
        )
        form = image_fields | fields | _filters(filter)
        reply = self._transport.send(Request(method="POST", path="/search", form=form, files=files)).json
        return Matches.from_json(reply)

    def search_many(self, queries: Iterable[SearchQuery | str]) -> Iterator[SearchOutcome]:
        """Search with any number of images, and yield the outcome of each, in order.

        A text is the name of a stored image. `queries` is read as it is sent: memory holds 500. A search that fails has
        an outcome with `fail`, and the others have their matches. Raises MatchError when the service answers none for
        `retry_for_s`.
        """
        yield from search_all(
            self._transport,
            (SearchQuery(filepath=query) if isinstance(query, str) else query for query in queries),
        )

    def compare(
        self,
        image1: ImageSource | None = None,
        image2: ImageSource | None = None,
        *,
        filepath1: str | None = None,
        filepath2: str | None = None,
        mode: str | None = None,
        collection: str | None = None,
    ) -> Comparison:
        """Return the similarity of two images, each an image or the name of a stored one."""
        first, first_files = _query(image1, filepath1, suffix="1")
        second, second_files = _query(image2, filepath2, suffix="2")
        form = first | second | _fields(mode=mode, collection=collection)
        request = Request(method="POST", path="/compare", form=form, files=[*first_files, *second_files])
        reply = self._transport.send(request).json
        [result] = reply["result"]
        return Comparison(warning=reply.get("code"), mode=reply.get("mode"), **similarity(result))

    # The stored images.

    def count(
        self,
        *,
        filepath_prefix: str | None = None,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the service's name
        collection: str | None = None,
    ) -> int:
        """Return the number of stored images."""
        query = _filters(filter) | _fields(filepath_prefix=filepath_prefix, collection=collection)
        [number] = self._send("GET", "/count", query)["result"]
        return int(number)

    def list(
        self,
        *,
        filepath_prefix: str | None = None,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the service's name
        collection: str | None = None,
        page: int = PAGE,
    ) -> Iterator[str]:
        """Yield the names of all stored images, oldest request first; `page` names are in memory."""
        for names in self.pages(filepath_prefix=filepath_prefix, filter=filter, collection=collection, page=page):
            yield from names.names

    def pages(
        self,
        cursor: str | None = None,
        *,
        filepath_prefix: str | None = None,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the service's name
        collection: str | None = None,
        page: int = PAGE,
    ) -> Iterator[Names]:
        """Yield the pages of `list`, from the cursor of an earlier page on."""
        query = _filters(filter) | _fields(filepath_prefix=filepath_prefix, collection=collection, limit=page)
        for reply in self._pages("/list", query, cursor=cursor):
            yield Names(names=tuple(reply["result"]), cursor=reply["cursor"])

    def image(self, filepath: str, *, collection: str | None = None) -> Image:
        """Return the stored image with this name. Raises NotFound."""
        query = _fields(filepath=filepath, collection=collection)
        [result] = self._send("GET", "/images", query)["result"]
        return Image.from_json(result)

    def images(
        self,
        *,
        filepath_prefix: str | None = None,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the service's name
        collection: str | None = None,
        page: int = PAGE_OF_IMAGES,
    ) -> Iterator[Image]:
        """Yield all stored images, oldest request first; `page` images are in memory."""
        query = _filters(filter) | _fields(filepath_prefix=filepath_prefix, collection=collection, limit=page)
        for reply in self._pages("/images", query):
            yield from map(Image.from_json, reply["result"])

    def thumbnail(self, filepath: str, *, collection: str | None = None) -> bytes | None:
        """Return a small WebP of a stored image, None if the service keeps none."""
        query = _fields(filepath=filepath, collection=collection)
        try:
            return self._transport.send(Request(method="GET", path="/images/thumbnail", query=query)).body
        except NotFound:
            return None

    # Tasks.

    def task(self, task_id: str) -> Task:
        """Return a task. Raises NotFound."""
        [result] = self._send("GET", _task_path(task_id))["result"]
        return Task.from_json(result)

    def tasks(
        self,
        state: str | None = None,
        *,
        ids: Iterable[str] | None = None,
        batch: str | None = None,
        request_id: str | None = None,
        code: str | None = None,
        filepath_prefix: str | None = None,
        collection: str | None = None,
    ) -> Iterator[Task]:
        """Yield the tasks in a state, newest first; by default the failed ones.

        With `ids`, `batch` or `request_id`, and without `code`, they are those tasks, by default in all states.
        """
        is_named = ids is not None or batch is not None or request_id is not None
        if state is None and (code is not None or not is_named):
            state = "failed"
        query = _fields(
            state=state,
            batch=batch,
            request_id=request_id,
            code=code,
            filepath_prefix=filepath_prefix,
            collection=collection,
            limit=PAGE,
        )
        groups = [()] if ids is None else _batches(ids, MAX_IDS)
        for group in groups:
            named = {f"ids[{number}]": task_id for number, task_id in enumerate(group)}
            for reply in self._pages("/tasks", query | named):
                yield from map(Task.from_json, reply["result"])

    @overload
    def wait(self, task: Batch, *, timeout_s: float = 60.0) -> Batch: ...

    @overload
    def wait(self, task: Task | str, *, timeout_s: float = 60.0) -> Task: ...

    def wait(self, task: Task | Batch | str, *, timeout_s: float = 60.0) -> Task | Batch:
        """Return a task, named by its id, or a batch when it has ended.

        Raises ImageError if the task failed, and TaskRunning after `timeout_s`. The failures of a batch are in its
        result.
        """
        if isinstance(task, Batch):
            return _wait(partial(self.batch, task.id), f"batch {task.id}", timeout_s)
        task_id = task if isinstance(task, str) else task.id
        current = _wait(partial(self.task, task_id), f"task {task_id}", timeout_s)
        if current.error is not None:
            raise ImageError(current.error.message, code=current.error.code, request_id=current.request_id)
        return current

    def retry(self, task_id: str) -> Task:
        """Enqueue a failed task again. Raises Conflict if it cannot be retried."""
        [result] = self._send("POST", f"{_task_path(task_id)}/retry")["result"]
        return Task.from_json(result)

    def retry_failed(
        self,
        *,
        code: str | None = None,
        batch: str | None = None,
        filepath_prefix: str | None = None,
        collection: str | None = None,
    ) -> Retried:
        """Enqueue all failed tasks again; needs a key with the scope admin where keys are required."""
        form = _fields(
            state="failed",
            code=code,
            batch=batch,
            filepath_prefix=filepath_prefix,
            collection=collection,
            limit=PAGE,
        )
        retried, left = 0, Counter[str]()
        for reply in self._pages("/tasks/retry", form, method="POST"):
            [result] = reply["result"]
            retried += result["retried"]
            left.update(result["left"])
        return Retried(retried=retried, left=dict(left))

    def cancel(self, task_id: str) -> Task:
        """Cancel a task that waits. Raises Conflict if it has begun."""
        [result] = self._send("DELETE", _task_path(task_id))["result"]
        return Task.from_json(result)

    # Batches.

    def batch(self, batch_id: str) -> Batch:
        """Return the progress of a batch. Raises NotFound."""
        [result] = self._send("GET", _batch_path(batch_id))["result"]
        return Batch.from_json(result)

    def batches(self, *, collection: str | None = None) -> Iterator[Batch]:
        """Yield the batches of a collection, newest first."""
        for reply in self._pages("/batches", _fields(collection=collection, limit=BATCHES_PAGE)):
            yield from map(Batch.from_json, reply["result"])

    def follow(self, batch_id: str, *, every_s: float = 1.0) -> Iterator[Batch]:
        """Yield the progress of a batch, at once and every `every_s` seconds, until it has ended."""
        while True:
            current = self.batch(batch_id)
            yield current
            if current.has_ended:
                return
            sleep(every_s)

    def cancel_batch(self, batch_id: str) -> Batch:
        """Cancel the waiting tasks of a batch; it accepts no more images. Raises NotFound."""
        [result] = self._send("DELETE", _batch_path(batch_id))["result"]
        return Batch.from_json(result)

    # Collections.

    def collections(self) -> Sequence[Collection]:
        """Return the collections that the API key may use."""
        return [Collection.from_json(result) for result in self._send("GET", "/collections")["result"]]

    def collection(self, name: str) -> Collection:
        """Return a collection. Raises NotFound."""
        [result] = self._send("GET", _collection_path(name))["result"]
        return Collection.from_json(result)

    def put_collection(self, name: str, *, max_images: int | None = None) -> Collection:
        """Create a collection, or change its quota; None removes the quota."""
        [result] = self._send("PUT", _collection_path(name), _fields(max_images=max_images))["result"]
        return Collection.from_json(result)

    def delete_collection(self, name: str) -> Task:
        """Delete a collection with all its images, and return the task that does it."""
        return Task.from_json(self._send("DELETE", _collection_path(name))["task"])

    # The service.

    def usage(self, *, days: int | None = None) -> Sequence[Usage]:
        """Return the use by API key and collection, of the last `days`; needs a key with the scope admin."""
        return [Usage.from_json(result) for result in self._send("GET", "/usage", _fields(days=days))["result"]]

    def ping(self) -> None:
        """Return when the service answers, without checking anything else."""
        self._send("GET", "/ping")

    def readiness(self) -> Readiness:
        """Return whether searches are served, with the state of each dependency."""
        try:
            reply = self._transport.send_once(Request(method="GET", path="/readyz"))
        except (ConnectionLost, Unavailable) as error:
            return Readiness(is_ready=False, errors=(str(error),))
        return Readiness(is_ready=True, errors=tuple(reply.json["error"]), checks=reply.json.get("checks", {}))

    def queue(self) -> Queue:
        """Return the state of the queue."""
        return self._queue("GET", "/queue")

    def pause_queue(self) -> Queue:
        """Let no worker begin a task, until the queue is resumed; needs the scope admin where keys are required."""
        return self._queue("POST", "/queue/pause")

    def resume_queue(self) -> Queue:
        """Let the workers begin tasks again; needs the scope admin where keys are required."""
        return self._queue("POST", "/queue/resume")

    def _queue(self, method: str, path: str) -> Queue:
        [result] = self._send(method, path)["result"]
        return Queue.from_json(result)

    def _send(self, method: str, path: str, params: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """Return the reply to a request; GET has its parameters in the query, any other method in a form."""
        query, form = (params, None) if method == "GET" else (None, params)
        return self._transport.send(Request(method=method, path=path, query=query, form=form)).json

    def _pages(
        self, path: str, params: Mapping[str, str], *, method: str = "GET", cursor: str | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the replies to a request, from cursor to cursor."""
        while True:
            reply = self._send(method, path, {**params, "cursor": cursor} if cursor else params)
            yield reply
            cursor = reply["cursor"]
            if cursor is None:
                return


def _wait(read_state: Callable[[], Ending], name: str, timeout_s: float) -> Ending:
    """Return the state when it has ended; raises TaskRunning after `timeout_s`."""
    deadline = monotonic() + timeout_s
    pause_s = FIRST_POLL_S
    current = read_state()
    while not current.has_ended:
        left_s = deadline - monotonic()
        if left_s <= 0:
            raise TaskRunning(f"{name} is still {current.state}", code="task_running")
        sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 2, LONGEST_POLL_S)
        current = read_state()
    return current


def _fields(**values: str | float | bool | None) -> dict[str, str]:
    """Return the parameters that have a value, as texts."""
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _filters(filters: Mapping[str, object] | None) -> dict[str, str]:
    return {f"filter[{key}]": _text(value) for key, value in (filters or {}).items()}


def _image(image: ImageSource, *, suffix: str = "") -> tuple[dict[str, str], list[tuple[str, File]]]:
    """Return the form's field and files of an image."""
    source = read(image)
    if isinstance(source, Url):
        return {f"url{suffix}": source.url}, []
    return {}, [(f"image{suffix}", ("image", source.data))]


def _query(
    image: ImageSource | None, filepath: str | None, *, suffix: str = ""
) -> tuple[dict[str, str], list[tuple[str, File]]]:
    """Return the form's field and files of an image, or of the name of a stored one."""
    if (image is None) == (filepath is None):
        raise TypeError(f"either image{suffix} or filepath{suffix} is required")
    if image is None:
        return _fields(**{f"filepath{suffix}": filepath}), []
    return _image(image, suffix=suffix)


def _task_path(task_id: str) -> str:
    return f"/tasks/{quote(task_id, safe='')}"


def _batch_path(batch_id: str) -> str:
    return f"/batches/{quote(batch_id, safe='')}"


def _collection_path(name: str) -> str:
    return f"/collections/{quote(name, safe='')}"


def _batches(values: Iterable[Value], size: int) -> Iterator[Sequence[Value]]:
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some
