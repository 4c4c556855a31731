"""A service in memory that speaks the HTTP API, with tasks, idempotency keys and faults on request."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from support.http_servers import Handler, LocalServer, serving

LIST_LIMIT = 20
ACCEPTED = "2026-03-01T09:30:00.000Z"


@dataclass(frozen=True)
class Call:
    """A request that the service received."""

    method: str
    path: str
    params: Mapping[str, Any]
    headers: Mapping[str, str]
    lines: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """A reply: a status, a JSON object, lines or a WebP, and headers."""

    status: int
    body: dict[str, Any] | list[dict[str, Any]] | bytes
    headers: Mapping[str, str] = field(default_factory=dict)


# A fault examines a call; it returns an answer that replaces the service's, `DROPPED`, or None.
Fault = Callable[[Call], Answer | str | None]
# The connection breaks after the call was executed, or before it.
DROPPED = "dropped after"
LOST = "dropped before"


class FakeMatch:
    """The state of a service; tests read and change it.

    `images` are the stored images with their metadata, in the order of their adds. `rejections` maps a filepath to the
    code of the error that its tasks end with. `capacity` is how many images are accepted before the backlog is full.
    """

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.data: dict[str, bytes] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        # The ids of the batches, with their states and their collections.
        self.batches: dict[str, str] = {}
        self.batch_collections: dict[str, str] = {}
        self.thumbnails: dict[str, bytes] = {}
        self.usage: list[dict[str, Any]] = []
        # The results of lines of a batch of searches that fail, by filepath.
        self.failed_lines: dict[str, dict[str, Any]] = {}
        self.max_search_lines = 1000
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.rejections: dict[str, str] = {}
        self.keys: dict[tuple[str, int], dict[str, Any]] = {}
        self.api_key: str | None = None
        self.capacity: int | None = None
        self.max_upload: int | None = None
        # Whether tasks end at once.
        self.is_working = True
        self.is_paused = False
        self.url = ""
        self._lock = Lock()

    def answer(self, call: Call) -> Answer | str:
        """Return the reply to a call, or LOST or DROPPED."""
        with self._lock:
            self.calls.append(call)
            outcome = next((result for fault in self.faults if (result := fault(call)) is not None), None)
            if isinstance(outcome, Answer) or outcome == LOST:
                return outcome
            answer = self._answer(call)
            return outcome or answer

    def calls_to(self, path: str) -> list[Call]:
        """Return the calls of an endpoint."""
        return [call for call in self.calls if call.path == path]

    def finish_tasks(self) -> None:
        """End all open tasks."""
        for task in self.tasks.values():
            if task["state"] == "pending":
                self._finish(task)

    def fail_once(self, path: str, result: Answer | str, *, times: int = 1) -> None:
        """Let the next calls of an endpoint fail."""
        left = [result] * times
        self.faults.append(lambda call: left.pop() if left and call.path == path else None)

    def _answer(self, call: Call) -> Answer:
        if self.api_key is not None and call.headers.get("Authorization") != f"Bearer {self.api_key}":
            return failure(401, "key_required", "API key required")
        if call.path.startswith("/tasks/") and call.path != "/tasks/retry":
            return self._task(call)
        if call.path.startswith("/batches/"):
            return self._batch_state(call)
        if call.path.startswith("/collections/"):
            return self._collection(call)
        endpoints: dict[str, Callable[[Call], Answer]] = {
            "/add": self._add,
            "/add/batch": self._batch,
            "/delete": self._delete,
            "/search": self._search,
            "/search/batch": self._search_batch,
            "/usage": lambda _: ok(self.usage),
            "/compare": lambda _: ok([{"score": 99.5}]),
            "/count": lambda call: ok([len(self._filtered(call))]),
            "/list": self._list,
            "/images": self._image,
            "/images/thumbnail": self._thumbnail,
            "/collections": lambda _: ok(list(self.collections.values())),
            "/queue": lambda _: ok([self._queue()]),
            "/queue/pause": lambda _: ok([self._queue(paused=True)]),
            "/queue/resume": lambda _: ok([self._queue(paused=False)]),
            "/batches": lambda call: ok([self._progress(name) for name in self._newest_batches(call)], cursor=None),
            "/tasks": self._tasks,
            "/tasks/retry": self._retry_all,
            "/ping": lambda _: ok([]),
            "/readyz": lambda _: ok([], checks={"store": {"reads": True}, "redis": {"ok": True}}),
        }
        endpoint = endpoints.get(call.path)
        return endpoint(call) if endpoint else failure(404, "not_found", f"not found: {call.path}")

    def _queue(self, *, paused: bool | None = None) -> dict[str, Any]:
        self.is_paused = self.is_paused if paused is None else paused
        waiting = sum(task["state"] == "pending" for task in self.tasks.values())
        numbers = {"waiting": waiting, "running": 0, "failed": 0, "oldest_age_s": 1.5, "rate_per_s": 2.5, "workers": 1}
        return numbers | {"paused": self.is_paused}

    def _add(self, call: Call) -> Answer:
        params = call.params
        if "filepath" in params:
            outcome = self._accept(call, 0, params["filepath"], _source(params), _metadata(params.get("metadata")))
            if outcome["status"] == "fail":
                status = 503 if "retry_after" in outcome else 422
                return failure(status, outcome["code"], outcome["error"][0], retry_after=outcome.get("retry_after"))
            task = outcome["task"]
            return ok([], status=200 if task["state"] == "succeeded" else 202, task=task)
        if conflict := self._conflict(call):
            return conflict
        numbers = sorted(int(match[1]) for name in params if (match := re.fullmatch(r"filepaths\[(\d+)\]", name)))
        outcomes = [
            {"item": number}
            | self._accept(
                call,
                number,
                params[f"filepaths[{number}]"],
                params.get(f"images[{number}]", params.get(f"urls[{number}]", b"")),
                _metadata(params.get(f"metadata[{number}]")),
            )
            for number in numbers
        ]
        if all(outcome["status"] == "fail" for outcome in outcomes):
            status = 503 if any("retry_after" in outcome for outcome in outcomes) else 422
            return Answer(status, {"status": "fail", "error": ["failed"], "result": outcomes, "code": "overloaded"})
        return ok(outcomes)

    def _newest_batches(self, call: Call) -> list[str]:
        return [name for name, collection in self.batch_collections.items() if collection == _collection(call)][::-1]

    def _progress(self, batch_id: str) -> dict[str, Any]:
        tasks = [task for task in self.tasks.values() if task["batch"] == batch_id]
        states, codes = Counter(task["state"] for task in tasks), Counter(_code(task) for task in tasks)
        is_open = states["pending"] > 0
        return {
            "id": batch_id,
            "state": "running" if is_open else self.batches[batch_id],
            "total": len(tasks),
            **states,
            "failures": {code: number for code, number in codes.items() if code},
            "accepted": ACCEPTED,
            "ended": None if is_open else ACCEPTED,
            "rate_per_s": 2.0,
            "seconds_left": states["pending"] / 2,
        }

    def _batch_state(self, call: Call) -> Answer:
        batch_id = call.path.split("/")[2]
        if batch_id not in self.batches:
            return failure(404, "unknown_batch", "unknown batch, or its record has expired", field="id")
        if call.method == "DELETE":
            self.batches[batch_id] = "cancelled"
            for task in self.tasks.values():
                if task["batch"] == batch_id and task["state"] == "pending":
                    task["state"] = "cancelled"
        return ok([self._progress(batch_id)])

    def _batch(self, call: Call) -> Answer:
        return self._conflict(call) or Answer(
            200,
            [
                {"line": number + 1} | self._accept_line(call, number, line)
                for number, line in enumerate(call.lines)
                if line is not None
            ],
        )

    def _accept_line(self, call: Call, number: int, line: Mapping[str, Any]) -> dict[str, Any]:
        collection = _collection(call)
        if "X-Batch-ID" in call.headers and line.get("collection", collection) != collection:
            return _failed("batch_conflict")
        return self._accept(call, number, line["filepath"], line["url"], line.get("metadata"))

    def _conflict(self, call: Call) -> Answer | None:
        """Join the batch that a request names; return the failure if it may not add to the batch."""
        batch = call.headers.get("X-Batch-ID")
        if batch is None:
            return None
        if self.batches.setdefault(batch, "ended") == "cancelled":
            return failure(409, "batch_cancelled", "the batch is cancelled", field="X-Batch-ID")
        if self.batch_collections.setdefault(batch, _collection(call)) != _collection(call):
            return failure(409, "batch_conflict", "the batch is of another collection", field="X-Batch-ID")
        return None

    def _accept(
        self, call: Call, number: int, filepath: str, source: bytes | str, metadata: dict[str, Any] | None
    ) -> dict[str, Any]:
        key = call.headers.get("Idempotency-Key")
        if key is not None and (key, number) in self.keys:
            task = self.keys[key, number]
            if task["filepath"] != filepath:
                return _failed("idempotency_conflict")
            return self._outcome(task) | {"replayed": True}
        if self.max_upload is not None and len(source) > self.max_upload:
            return _failed("too_large")
        if self.capacity == 0:
            return _failed("overloaded") | {"retry_after": 0}
        if self.capacity is not None:
            self.capacity -= 1
        task = {"id": f"{len(self.tasks):032x}", "state": "pending", "filepath": filepath, "accepted": ACCEPTED}
        task |= {"error": None, "warning": None, "attempts": 1, "metadata": metadata, "source": source}
        task |= {"batch": call.headers.get("X-Batch-ID"), "collection": _collection(call)}
        task |= {"request_id": call.headers.get("X-Request-ID")}
        self.tasks[task["id"]] = task
        if key is not None:
            self.keys[key, number] = task
        if self.is_working:
            self._finish(task)
        return self._outcome(task)

    def _finish(self, task: dict[str, Any]) -> None:
        filepath = task["filepath"]
        if code := self.rejections.get(filepath):
            task |= {"state": "failed", "error": {"code": code, "message": f"failed: {code}"}}
            return
        task["state"] = "succeeded"
        source = task["source"]
        self.images[filepath] = {
            "filepath": filepath,
            "metadata": task["metadata"],
            "added": ACCEPTED,
            "width": 10,
            "height": 10,
            "featureless": False,
            "url": source if isinstance(source, str) else None,
            "sha256": None,
        }
        self.data[filepath] = source.encode() if isinstance(source, str) else source

    def _outcome(self, task: Mapping[str, Any]) -> dict[str, Any]:
        error = task["error"]
        failed = {} if error is None else {"code": error["code"], "error": [error["message"]], "status": "fail"}
        return {"status": "ok", "error": [], "task": _shown(task), "batch": task["batch"]} | failed

    def _delete(self, call: Call) -> Answer:
        if "filepath_prefix" in call.params or any(name.startswith("filter") for name in call.params):
            return self._delete_selected(call)
        for name, filepath in call.params.items():
            if name.startswith("filepath"):
                self.images.pop(filepath, None)
        return ok([])

    def _delete_selected(self, call: Call) -> Answer:
        names = self._filtered(call)
        if call.params.get("dry_run") == "true":
            return ok([len(names)])
        if int(call.params.get("expect", len(names))) != len(names):
            return failure(409, "unexpected_count", f"expect: {len(names)} images are selected", field="expect")
        for name in names:
            del self.images[name]
        return ok([], status=202, task={"id": "1", "state": "pending", "filepath": None, "batch": "b"})

    def _search(self, call: Call) -> Answer:
        """Return the images with the same bytes."""
        query = call.params.get("image") or self.data.get(call.params.get("filepath", ""))
        if query is None:
            return failure(404, "unknown_filepath", "no image is stored under this filepath", field="filepath")
        return ok(
            [
                {"score": 100.0, "filepath": name, "metadata": image["metadata"], "orientation": "original"}
                for name, image in self.images.items()
                if self.data[name] == query
            ][: int(call.params.get("limit", 100))]
        )

    def _search_batch(self, call: Call) -> Answer:
        lines = [line for line in call.lines if line is not None]
        if len(lines) > self.max_search_lines:
            return failure(413, "too_large", "too many lines", field="body")
        return Answer(200, [{"line": number} | self._search_line(line) for number, line in enumerate(lines, 1)])

    def _search_line(self, line: Mapping[str, Any]) -> dict[str, Any]:
        if failed := self.failed_lines.get(line.get("filepath", "")):
            return {"status": "fail", "error": ["failed"], "result": [], **failed}
        answer = self._search(Call("POST", "/search", line, {}))
        assert isinstance(answer.body, dict)
        return {name: value for name, value in answer.body.items() if name != "method"}

    def _filtered(self, call: Call) -> list[str]:
        where = {name[7:-1]: value for name, value in call.params.items() if name.startswith("filter[")}
        return [
            name
            for name, image in self.images.items()
            if all((image["metadata"] or {}).get(key) == value for key, value in where.items())
            and name.startswith(call.params.get("filepath_prefix", ""))
        ]

    def _list(self, call: Call) -> Answer:
        start, limit = int(call.params.get("cursor") or 0), int(call.params.get("limit", LIST_LIMIT))
        names = self._filtered(call)[start : start + limit]
        return ok(names, cursor=f"{start + limit}" if len(names) == limit else None)

    def _image(self, call: Call) -> Answer:
        if "filepath" not in call.params:
            page = self._list(call).body
            assert isinstance(page, dict)
            return ok([self.images[name] for name in page["result"]], cursor=page["cursor"])
        image = self.images.get(call.params["filepath"])
        if image is None:
            return failure(404, "unknown_filepath", "no image is stored under this filepath", field="filepath")
        if call.method == "PATCH":
            changes = json.loads(call.params["metadata"]) or {}
            image["metadata"] = {
                key: value for key, value in ((image["metadata"] or {}) | changes).items() if value is not None
            }
        return ok([image])

    def _thumbnail(self, call: Call) -> Answer:
        thumbnail = self.thumbnails.get(call.params["filepath"])
        return Answer(200, thumbnail) if thumbnail else failure(404, "no_thumbnail", "no thumbnail is kept")

    def _tasks(self, call: Call) -> Answer:
        state, batch, request_id = (call.params.get(name) for name in ("state", "batch", "request_id"))
        ids = [value for name, value in call.params.items() if name.startswith("ids[")]
        if batch not in {None, *self.batches}:
            return failure(404, "unknown_batch", "unknown batch, or its record has expired", field="batch")
        if state is None and batch is None and request_id is None and not ids:
            return failure(400, "missing_parameter", "state is required", field="state")
        code = call.params.get("code")
        if code is not None and state != "failed":
            return failure(400, "invalid_parameter", "code: requires state=failed", field="code")
        listed = [self.tasks[task_id] for task_id in ids if task_id in self.tasks] if ids else self.tasks.values()
        return ok(
            [
                _shown(task)
                for task in listed
                if state in {None, task["state"]}
                and batch in {None, task["batch"]}
                and request_id in {None, task["request_id"]}
                and code in {None, _code(task)}
            ],
            cursor=None,
        )

    def _task(self, call: Call) -> Answer:
        task = self.tasks.get(call.path.split("/")[2])
        if task is None:
            return failure(404, "unknown_task", "unknown task, or its record has expired", field="id")
        if call.method == "GET":
            return ok([_shown(task)])
        required = "failed" if call.path.endswith("/retry") else "pending"
        if task["state"] != required:
            return failure(409, f"not_{required}", f"the task is {task['state']}", field="id")
        if required == "pending":
            task["state"] = "cancelled"
            return ok([_shown(task)])
        task |= {"state": "pending", "error": None}
        self._finish(task)
        return ok([_shown(task)], status=202)

    def _collection(self, call: Call) -> Answer:
        name = call.path.split("/")[2]
        if call.method == "PUT":
            quota = call.params.get("max_images")
            self.collections[name] = {"name": name, "images": 0, "max_images": None if quota is None else int(quota)}
        if name not in self.collections:
            return failure(404, "unknown_collection", "unknown collection", field="name")
        if call.method == "DELETE":
            del self.collections[name]
            return ok([], status=202, task={"id": "1", "state": "pending", "filepath": None, "collection": name})
        return ok([self.collections[name]])

    def _retry_all(self, _: Call) -> Answer:
        failed = [task for task in self.tasks.values() if task["state"] == "failed"]
        for task in failed:
            task |= {"state": "pending", "error": None}
            self._finish(task)
        return ok([{"retried": len(failed), "left": {}}], status=202, cursor=None)


@contextmanager
def fake_match() -> Iterator[FakeMatch]:
    """Serve a new service on loopback until the `with` block ends; `url` is its address."""
    match = FakeMatch()

    class Requests(Handler):
        """Passes each request on to the service."""

        protocol_version = "HTTP/1.1"
        do_DELETE = do_PATCH = Handler.do_GET  # noqa: N815 - the names are http.server's

        def answer(self) -> None:
            """Answer the request, or break the connection."""
            answer = match.answer(_call(self))
            if isinstance(answer, str):
                self.close_connection = True
                return
            if isinstance(answer.body, bytes):
                body, content_type = answer.body, "image/webp"
            elif isinstance(answer.body, list):
                body, content_type = b"".join(_line(line) for line in answer.body), "application/x-ndjson"
            else:
                body, content_type = json.dumps(answer.body).encode(), "application/json"
            self.reply(answer.status, body, {"Content-Type": content_type, "X-Request-ID": "r1", **answer.headers})

    with serving(LocalServer(Requests)) as server:
        match.url = server.url
        yield match


def ok(result: list[Any], *, status: int = 200, **extra: Any) -> Answer:
    """Return a successful answer."""
    return Answer(status, {"status": "ok", "error": [], "method": "", "result": result, **extra})


def failure(
    status: int, code: str, message: str, *, field: str | None = None, retry_after: int | None = None
) -> Answer:
    """Return a failed answer."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    about = {} if field is None else {"field": field}
    body = {"status": "fail", "error": [message], "method": "", "result": [], "code": code, **about}
    return Answer(status, body, headers)


def _collection(call: Call) -> str:
    return str(call.params.get("collection", "default"))


def _code(task: Mapping[str, Any]) -> str | None:
    return None if task["error"] is None else str(task["error"]["code"])


def _failed(code: str) -> dict[str, Any]:
    return {"status": "fail", "error": [code], "code": code}


def _shown(task: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in task.items() if name not in {"source", "metadata"}}


def _source(params: Mapping[str, Any]) -> bytes | str:
    source: bytes | str = params.get("image", params.get("url", b""))
    return source


def _metadata(text: str | bytes | None) -> dict[str, Any] | None:
    metadata: dict[str, Any] | None = None if text is None else json.loads(text)
    return metadata


def _line(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _call(handler: Handler) -> Call:
    """Return the parsed request."""
    address = urlsplit(handler.path)
    params: dict[str, Any] = dict(parse_qsl(address.query))
    body, lines = handler.body(), list[Any]()
    content_type = handler.headers.get("Content-Type", "")
    if content_type.startswith("multipart/form-data"):
        params |= _parts(content_type, body)
    elif content_type == "application/x-ndjson":
        lines = [json.loads(line) if line.strip() else None for line in body.split(b"\n")]
    else:
        params |= dict(parse_qsl(body.decode(), keep_blank_values=True))
    return Call(handler.command, unquote(address.path), params, dict(handler.headers.items()), lines)


def _parts(content_type: str, body: bytes) -> dict[str, Any]:
    """Return the fields of a form as texts, its files as bytes."""
    message = BytesParser(EmailMessage, policy=HTTP).parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    )
    params: dict[str, Any] = {}
    for part in message.iter_parts():
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        name = str(part.get_param("name", header="content-disposition"))
        params[name] = data if part.get_filename() else data.decode()
    return params
