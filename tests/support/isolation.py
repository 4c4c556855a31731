"""Random requests by keys of some collections, and a model of what each may see."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from redis import Redis

from api.access.keys import Keyring, Scope
from api.new_key import table
from common.byte_budget import ByteBudget
from common.collection_names import DEFAULT_COLLECTION, matches
from common.config import Settings
from common.decoding.protocol import Output, SignedImage
from common.errors import ImageError
from common.net.addresses import Target, read_url
from common.net.body import Reserve, unlimited
from common.queue.admission import Admission
from common.queue.ledger import Ledger
from common.store.base import Store
from common.uploads import RedisUploads
from support.images import gradient
from support.pipelines import open_pipeline
from support.records import signature

COLLECTIONS = [DEFAULT_COLLECTION, *(f"c-{number:02}" for number in range(1, 50))]
# By key: five have some collections each, some have a pattern, and one has all.
KEYS: Mapping[str, tuple[str, ...] | None] = {
    **{f"few-{n}": (COLLECTIONS[n], COLLECTIONS[(7 * n) % 50], COLLECTIONS[(11 * n + 3) % 50]) for n in range(12)},
    **{f"pattern-{n}": (f"c-{n}*",) for n in range(5)},
    "default": (DEFAULT_COLLECTION,),
    "two": ("c-0*", "c-4*"),
    "all": None,
}
FILEPATHS = 4
IMAGES = 5
# The number of the image that cannot be decoded.
BROKEN = 0
STATES = ("pending", "failed", "succeeded", "superseded", "cancelled")
HOST = "http://images.example.org/"
TASK_ID = re.compile(r"\b[0-9a-f]{32}\b")
MARK = re.compile(r"mark of ([a-z0-9_-]+)!")


def keys_file() -> str:
    """Return a file with all keys; the secret of each is its name."""
    return "".join(table(name, [*Scope], f"secret {name}", limits or ()) for name, limits in KEYS.items())


def file_of(number: int) -> bytes:
    """Return the bytes of an image: a PNG, and the number that the decoder of these tests reads."""
    return _PNG + b"#%d" % number


class NumberDecoder:
    """A Decoder whose images have only the signature of their number."""

    def decode(self, data: bytes, *, outputs: Output = Output.SIGNATURES, client: str = "") -> SignedImage:
        del outputs, client
        number = int(data.rpartition(b"#")[2])
        if number == BROKEN:
            raise ImageError("broken", code="broken_image")
        return SignedImage(signatures=(signature(number),), width=1, height=1)


class NumberFetcher:
    """A fetcher of the images at `HOST`, whose paths are their numbers."""

    def validate(self, url: str) -> Target:
        return read_url(url)

    def fetch(self, url: str, *, reserve: Reserve = unlimited) -> bytes:
        data = file_of(int(url.removeprefix(HOST)))
        reserve(len(data), within_s=0)
        return data

    def close(self) -> None:
        pass


@dataclass
class ModelTask:
    """A task of the model; `order` is its position among all requests."""

    collection: str
    order: int
    filepath: str = ""
    number: int = BROKEN
    state: str = "pending"

    @property
    def is_deletion(self) -> bool:
        return not self.filepath


@dataclass
class ModelBatch:
    """A batch of the model, with the ids of its tasks."""

    collection: str
    task_ids: list[str] = field(default_factory=list)
    is_cancelled: bool = False


@dataclass
class ModelCollection:
    """The stored images of a collection: order and number by filepath; `deleted` has the orders of deletions."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    deleted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    deleted_whole: int = 0
    has_entry: bool = False


class World:
    """A service, its model, and requests that check the service against the model.

    `run` runs a task, as a worker does. Each operation has the same arguments: the name of a key, a collection, another
    one, the number of a filepath, the number of an image, and any number.
    """

    def __init__(self, client: FlaskClient, run: Callable[[str], None], refresh: Callable[[], None]) -> None:
        self.client = client
        self.run_task = run
        self.refresh = refresh
        self.collections: defaultdict[str, ModelCollection] = defaultdict(ModelCollection)
        self.tasks: dict[str, ModelTask] = {}
        self.batches: dict[str, ModelBatch] = {}
        self.keyed: dict[tuple[str, str], tuple[str, tuple[str, str, int]]] = {}
        self.requests = 0
        # Successful requests by key.
        self.answered: Counter[str] = Counter()
        self.order = 0

    def step(self, operation: str, key: str, collection: str, *numbers: Any) -> None:
        """Send a request, or run tasks."""
        getattr(self, operation)(key, collection, *numbers)

    def allowed(self, key: str) -> list[str]:
        """Return the collections that the key may use."""
        return [name for name in COLLECTIONS if may(key, name)]

    # --- requests ------------------------------------------------------------

    def add(self, key: str, collection: str, _other: str, filepath: int, number: int, seed: int) -> None:
        headers = {} if seed % 3 else {"Idempotency-Key": f"{seed % 30}"}
        answer = self._send(
            key,
            "POST",
            "/add",
            headers=headers,
            data={"image": (BytesIO(file_of(number)), "a.png"), **self._named(collection, filepath)},
        )
        if self._is_unknown(key, collection, answer, exists=True):
            return
        content = (collection, f"{filepath}", number)
        if headers:
            task_id, first = self.keyed.get((key, headers["Idempotency-Key"]), ("", content))
            if first != content:
                assert (answer.status_code, answer.json["code"]) == (409, "idempotency_conflict")
                assert "task" not in answer.json
                return
            if task_id:
                assert answer.json["task"]["id"] == task_id
                return
            self.keyed[key, headers["Idempotency-Key"]] = answer.json["task"]["id"], content
        self._accepted(answer.json["task"], *content)

    def batch(self, key: str, collection: str, other: str, filepath: int, number: int, _seed: int) -> None:
        about = {"url": f"{HOST}{number}", "metadata": {"mark": ""}}
        lines = [
            {**about, "filepath": f"{filepath}", "metadata": {"mark": mark(collection)}},
            {**about, "filepath": f"{filepath}", "metadata": {"mark": mark(other)}, "collection": other},
        ]
        answer = self._send(
            key,
            "POST",
            "/add/batch",
            query_string={"collection": collection},
            data="\n".join(json.dumps(line) for line in lines),
            content_type="application/x-ndjson",
        )
        if self._is_unknown(key, collection, answer, exists=True):
            return
        outcomes = [json.loads(line) for line in answer.text.splitlines()]
        for name, outcome in zip((collection, other), outcomes, strict=True):
            if not may(key, name):
                assert outcome["code"] == "unknown_collection"
                assert "task" not in outcome
            else:
                self._accepted(outcome["task"], name, f"{filepath}", number)
                self.batches.setdefault(outcome["batch"], ModelBatch(name)).task_ids.append(outcome["task"]["id"])

    def read_batch(self, key: str, _collection: str, *numbers: Any) -> None:
        self._with_batch(key, "GET", numbers[-1])

    def cancel_batch(self, key: str, _collection: str, *numbers: Any) -> None:
        self._with_batch(key, "DELETE", numbers[-1])

    def list_batches(self, key: str, collection: str, *_: Any) -> None:
        answer = self._send(key, "GET", "/batches", query_string={"collection": collection, "limit": 1000})
        if may(key, collection):
            expected = {name for name, batch in self.batches.items() if batch.collection == collection}
            assert {batch["id"] for batch in answer.json["result"]} == expected
        else:
            assert unknown(answer)

    def _with_batch(self, key: str, method: str, seed: int) -> None:
        """Read or cancel a batch, and check its counters against its tasks."""
        if not self.batches:
            return
        name = sorted(self.batches)[seed % len(self.batches)]
        batch = self.batches[name]
        answer = self._send(key, method, f"/batches/{name}")
        if not may(key, batch.collection):
            assert (answer.status_code, answer.json["code"]) == (404, "unknown_batch")
            return
        tasks = [self.tasks[task_id] for task_id in batch.task_ids]
        pending = [task for task in tasks if task.state == "pending"]
        if method == "DELETE" and pending:
            batch.is_cancelled = True
            for task in pending:
                task.state = "cancelled"
        states = Counter(task.state for task in tasks)
        [progress] = answer.json["result"]
        assert {state: progress[state] for state in STATES if progress[state]} == dict(states)
        assert progress["total"] == len(tasks)
        ended = "running" if states["pending"] else "ended"
        assert progress["state"] == ("cancelled" if batch.is_cancelled else ended)

    def delete(self, key: str, collection: str, _other: str, filepath: int, _number: int, _seed: int) -> None:
        answer = self._send(key, "DELETE", "/delete", data={"filepath": f"{filepath}", "collection": collection})
        if self._is_unknown(key, collection, answer):
            return
        model = self.collections[collection]
        self.order += 1
        model.images.pop(f"{filepath}", None)
        model.deleted[f"{filepath}"] = self.order
        self.refresh()
        assert answer.status_code == 200

    def count(self, key: str, collection: str, *_: Any) -> None:
        answer = self._send(key, "GET", "/count", query_string={"collection": collection})
        if not self._is_unknown(key, collection, answer):
            assert answer.json["result"] == [len(self.collections[collection].images)]

    def list(self, key: str, collection: str, _other: str, offset: int, *_: Any) -> None:
        answer = self._send(key, "GET", "/list", query_string={"collection": collection, "offset": offset})
        if not self._is_unknown(key, collection, answer):
            images = self.collections[collection].images
            assert answer.json["result"] == sorted(images, key=lambda name: images[name])[offset:]

    def images(self, key: str, collection: str, _other: str, filepath: int, *_: Any) -> None:
        query = {"collection": collection, "filepath": f"{filepath}"}
        answer = self._send(key, "GET", "/images", query_string=query)
        if self._is_unknown(key, collection, answer) or self._is_absent(collection, filepath, answer):
            return
        [record] = answer.json["result"]
        assert (record["collection"], record["metadata"]) == (collection, {"mark": mark(collection)})

    def records(self, key: str, collection: str, _other: str, filepath: int, *_: Any) -> None:
        query = {"collection": collection, "filepath_prefix": f"{filepath}", "limit": "500"}
        answer = self._send(key, "GET", "/images", query_string=query)
        if self._is_unknown(key, collection, answer):
            return
        images = self.collections[collection].images
        expected = [name for name in sorted(images, key=lambda name: images[name]) if name.startswith(f"{filepath}")]
        assert [record["filepath"] for record in answer.json["result"]] == expected
        assert all(record["metadata"] == {"mark": mark(collection)} for record in answer.json["result"])

    def patch(self, key: str, collection: str, _other: str, filepath: int, *_: Any) -> None:
        metadata = {"mark": mark(collection)}
        changes = {"collection": collection, "filepath": f"{filepath}", "metadata": metadata}
        answer = self._send(key, "PATCH", "/images", json=changes)
        if self._is_unknown(key, collection, answer):
            return
        if f"{filepath}" in self.collections[collection].images:
            expected = {"collection": collection, "filepath": f"{filepath}", "metadata": metadata}
            assert answer.json["result"] == [expected]
        else:
            assert (answer.status_code in {202, 404}, answer.json["result"]) == (True, [])

    def search(self, key: str, collection: str, _other: str, _filepath: int, number: int, _seed: int) -> None:
        if number == BROKEN:
            return
        data = {"image": (BytesIO(file_of(number)), "a.png"), "collection": collection, "all_orientations": "false"}
        answer = self._send(key, "POST", "/search", data=data)
        if not self._is_unknown(key, collection, answer):
            self._check_matches(answer, collection, number)

    def search_stored(self, key: str, collection: str, _other: str, filepath: int, *_: Any) -> None:
        data = {"filepath": f"{filepath}", "collection": collection, "all_orientations": "false"}
        answer = self._send(key, "POST", "/search", data=data)
        if not self._is_unknown(key, collection, answer) and not self._is_absent(collection, filepath, answer):
            self._check_matches(answer, collection, self.collections[collection].images[f"{filepath}"][1])

    def compare(self, key: str, collection: str, _other: str, filepath: int, number: int, _seed: int) -> None:
        names = {"filepath1": f"{filepath}", "filepath2": f"{number % FILEPATHS}"}
        answer = self._send(key, "POST", "/compare", data={**names, "collection": collection})
        if self._is_unknown(key, collection, answer):
            return
        if any(self._is_absent(collection, name, answer) for name in names.values()):
            return
        first, second = (self.collections[collection].images[name][1] for name in names.values())
        assert (answer.json["result"][0]["score"] == 100) == (first == second)

    def list_tasks(self, key: str, collection: str, _other: str, _filepath: int, _number: int, seed: int) -> None:
        state = STATES[seed % len(STATES)]
        listed: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            query = {"state": state, "collection": collection, "cursor": cursor, "limit": 1 + seed % 20}
            answer = self._send(key, "GET", "/tasks", query_string=query)
            if not may(key, collection):
                assert unknown(answer)
                return
            listed += [task["id"] for task in answer.json["result"]]
            cursor = answer.json["cursor"]
        expected = {
            task_id for task_id, task in self.tasks.items() if (task.collection, task.state) == (collection, state)
        }
        assert set(listed) == expected

    def task(self, key: str, _collection: str, *numbers: Any) -> None:
        self._with_task(key, "GET", "", numbers[-1], lambda task, answer: self._check_state(answer, task))

    def cancel(self, key: str, _collection: str, *numbers: Any) -> None:
        def check(task: ModelTask, answer: Any) -> None:
            assert answer.status_code == (200 if task.state in {"pending", "cancelled"} else 409)
            task.state = "cancelled" if task.state == "pending" else task.state

        self._with_task(key, "DELETE", "", numbers[-1], check)

    def retry(self, key: str, _collection: str, *numbers: Any) -> None:
        def check(task: ModelTask, answer: Any) -> None:
            is_late = task.order < self.collections[task.collection].deleted_whole
            cancelled = [one for batch in self.batches.values() if batch.is_cancelled for one in batch.task_ids]
            is_void = any(self.tasks[one] is task for one in cancelled)
            is_reopened = task.state == "failed" and not is_late and not is_void
            assert answer.status_code == (202 if is_reopened else 409)
            task.state = "pending" if is_reopened else task.state

        self._with_task(key, "POST", "/retry", numbers[-1], check)

    def list_collections(self, key: str, *_: Any) -> None:
        answer = self._send(key, "GET", "/collections")
        listed = {one["name"]: one["images"] for one in answer.json["result"]}
        assert listed == {
            name: len(self.collections[name].images) for name in COLLECTIONS if may(key, name) and self._exists(name)
        }

    def read_collection(self, key: str, collection: str, *_: Any) -> None:
        answer = self._send(key, "GET", f"/collections/{collection}")
        if not self._is_unknown(key, collection, answer):
            assert answer.json["result"][0]["images"] == len(self.collections[collection].images)

    def delete_collection(self, key: str, collection: str, *_: Any) -> None:
        answer = self._send(key, "DELETE", f"/collections/{collection}")
        if not self._is_unknown(key, collection, answer):
            self._accepted(answer.json["task"], collection, "", BROKEN)

    def run(self, _key: str, _collection: str, *numbers: Any) -> None:
        """Run some of the pending tasks, in an order that depends on the number."""
        seed = numbers[-1]
        pending = sorted(task_id for task_id, task in self.tasks.items() if task.state == "pending")
        for task_id in pending[seed % 3 :: 1 + seed % 2]:
            self.run_task(task_id)
            self._ran(self.tasks[task_id])
        self.refresh()

    # --- the model -----------------------------------------------------------

    def _accepted(self, task: Mapping[str, Any], collection: str, filepath: str, number: int) -> None:
        assert (task["collection"], task["filepath"] or "", task["state"]) == (collection, filepath, "pending")
        self.order += 1
        self.tasks[task["id"]] = ModelTask(collection, self.order, filepath, number)
        if not self._exists(collection):
            self.collections[collection].has_entry = True
            self.refresh()

    def _ran(self, task: ModelTask) -> None:
        model = self.collections[task.collection]
        if task.order < model.deleted_whole:
            task.state = "superseded"
        elif task.is_deletion:
            task.state = "succeeded"
            model.deleted_whole = task.order
            model.images = {name: image for name, image in model.images.items() if image[0] > task.order}
            model.has_entry = model.has_entry and bool(model.images)
        elif task.number == BROKEN:
            task.state = "failed"
        elif max(model.images.get(task.filepath, (0, 0))[0], model.deleted[task.filepath]) > task.order:
            task.state = "superseded"
        else:
            task.state = "succeeded"
            model.images[task.filepath] = task.order, task.number

    def _exists(self, collection: str) -> bool:
        model = self.collections[collection]
        return collection == DEFAULT_COLLECTION or model.has_entry or bool(model.images)

    # --- checks --------------------------------------------------------------

    def _send(self, key: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, **sent: Any) -> Any:
        self.requests += 1
        credentials = {"Authorization": f"Bearer secret {key}", **(headers or {})}
        # A server closes each reply. Without this, the contexts of all requests would stay open.
        answer = self.client.open(path, method=method, headers=credentials, buffered=True, **sent)
        assert answer.status_code < 500, answer.text
        self.answered[key] += answer.status_code < 300
        self._check_leaks(key, answer.text)
        return answer

    def _check_leaks(self, key: str, text: str) -> None:
        """Check that a reply has neither a mark nor a task of a collection that the key may not use."""
        leaks = [name for name in MARK.findall(text) if not may(key, name)]
        known = [self.tasks[task_id] for task_id in TASK_ID.findall(text) if task_id in self.tasks]
        leaks += [task.collection for task in known if not may(key, task.collection)]
        assert leaks == [], f"key {key} received {text}"

    def _is_unknown(self, key: str, collection: str, answer: Any, *, exists: bool = False) -> bool:
        """Return whether the collection is unknown to the key, after a check of the reply."""
        is_unknown = not may(key, collection) or not (exists or self._exists(collection))
        assert unknown(answer) == is_unknown, answer.text
        return is_unknown

    def _is_absent(self, collection: str, filepath: object, answer: Any) -> bool:
        is_absent = f"{filepath}" not in self.collections[collection].images
        assert not is_absent or (answer.status_code, answer.json["code"]) == (404, "unknown_filepath")
        return is_absent

    def _check_matches(self, answer: Any, collection: str, number: int) -> None:
        images = self.collections[collection].images
        expected = {name for name, (_, its) in images.items() if its == number}
        assert {match["filepath"] for match in answer.json["result"]} == expected
        assert {match["metadata"]["mark"] for match in answer.json["result"]} <= {mark(collection)}

    def _check_state(self, answer: Any, task: ModelTask) -> None:
        [result] = answer.json["result"]
        assert (result["state"], result["collection"]) == (task.state, task.collection)

    def _with_task(
        self, key: str, method: str, suffix: str, seed: int, check: Callable[[ModelTask, Any], None]
    ) -> None:
        """Send a request about one of the last tasks, and check its reply if the key may see the task."""
        if not self.tasks:
            return
        recent = [*self.tasks][-200:]
        task_id = recent[seed % len(recent)]
        answer = self._send(key, method, f"/tasks/{task_id}{suffix}")
        if may(key, self.tasks[task_id].collection):
            check(self.tasks[task_id], answer)
        else:
            assert (answer.status_code, answer.json["code"]) == (404, "unknown_task")

    def _named(self, collection: str, filepath: int) -> dict[str, str]:
        names = {"filepath": f"{filepath}", "metadata": json.dumps({"mark": mark(collection)})}
        return names if collection == DEFAULT_COLLECTION else {**names, "collection": collection}


@contextmanager
def open_world(
    make_client: Callable[..., FlaskClient], redis: Redis, store: Store, keys: Path, *, keep_s: int = 3600
) -> Iterator[World]:
    """Open a service with this empty store and Redis; a worker's tasks run in this process."""
    keys.write_text(keys_file())
    decoder, fetcher = NumberDecoder(), NumberFetcher()
    settings = Settings(max_image_bytes=100_000, api_keys_file=keys, local_features=False)
    client = make_client(
        redis,
        store=store,
        decoder=decoder,
        fetcher=fetcher,
        keyring=Keyring(keys),
        settings=settings,
        max_open=100_000,
        keep_s=keep_s,
    )
    ledger = Ledger(redis, max_open=100_000, finished_keep_s=keep_s, failed_keep_s=keep_s)
    uploads = RedisUploads(redis, admission=Admission(redis, max_percent=80), max_bytes=10_000_000)
    with open_pipeline(
        redis,
        ledger,
        uploads,
        store,
        failed_keep_s=keep_s,
        fetcher=fetcher,
        budget=ByteBudget(1_000_000, wait_s=1),
        decoder=decoder,
        local_features=False,
    ) as pipeline:
        yield World(client, pipeline.run, store.refresh)


OPERATIONS = (
    *("add", "add", "add", "batch", "run", "run", "delete", "count", "list", "images", "search", "search_stored"),
    *("batch", "read_batch", "read_batch", "cancel_batch", "list_batches"),
    *("records", "patch"),
    *("compare", "list_tasks", "task", "cancel", "retry", "list_collections", "read_collection", "delete_collection"),
)


def may(key: str, collection: str) -> bool:
    """Return whether the key may use the collection."""
    limits = KEYS[key]
    return limits is None or matches(collection, limits)


def mark(collection: str) -> str:
    """Return the text that all images of the collection have in their metadata."""
    return f"mark of {collection}!"


def unknown(answer: Any) -> bool:
    """Return whether the reply is that to an unknown collection."""
    return bool(answer.status_code == 404 and answer.json["code"] == "unknown_collection")


_PNG = gradient(size=(8, 8))
