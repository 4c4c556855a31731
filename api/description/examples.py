"""Examples of requests and their replies: the documentation shows them, and tests run them."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.errors import ERRORS
from common.warning_codes import FEATURELESS, WARNINGS


class File(str):
    """The name of an uploaded file, one of examples/images."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A request to an endpoint and its reply; without a `method`, one for each method of the endpoint.

    `form` are parameters of the form, or of the query for other methods and beside JSON `lines`. `extra` are keys of
    the reply beside the four of the envelope.
    """

    title: str
    method: str = ""
    path: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[Mapping[str, Any]] = ()
    http_status: int = 200
    status: str = "ok"
    error: Sequence[str] = ()
    result: Sequence[Any] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self, method: str) -> dict[str, Any]:
        """Return the reply's body."""
        return {"method": method, "status": self.status, "error": self.error, "result": self.result, **self.extra}

    def json(self) -> dict[str, Any]:
        """Return the parameters as a JSON body; those with keys are an object or a list."""
        values: dict[str, Any] = {}
        for name, value in self.form.items():
            field, _, key = name.removesuffix("]").partition("[")
            if key.isdecimal():
                values.setdefault(field, []).append(value)
            elif key:
                values.setdefault(field, {})[key] = value
            else:
                values[field] = json.loads(value) if field == "metadata" else value
        return values

    def in_form(self) -> dict[str, Any]:
        """Return the parameters as the fields of a form: those with keys are an object or a list, metadata are JSON."""
        return {name: self.form[name] if name == "metadata" else value for name, value in self.json().items()}

    def has_files(self) -> bool:
        """Return whether it needs a multipart form."""
        return any(isinstance(value, File) for value in self.form.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureExample:
    """A request that fails; without a path, the failure does not depend on the request only.

    `error` is the message, by default the text of the code.
    """

    title: str
    endpoint: str
    code: str
    error: str = ""
    method: str = "POST"
    path: str = ""
    form: Mapping[str, Any] = field(default_factory=dict)
    mimetype: str = ""
    parameter: str | None = None

    @property
    def http_status(self) -> int:
        """The reply's HTTP status."""
        return ERRORS[self.code].status

    def body(self) -> dict[str, Any]:
        """Return the reply's body."""
        field = {} if self.parameter is None else {"field": self.parameter}
        message = self.error or ERRORS[self.code].text
        return {"method": self.endpoint, "status": "fail", "error": [message], "result": [], "code": self.code, **field}


TASK_ID = "3f0c5d1e9b7a4c2f8e6d1a0b9c8d7e6f"
BATCH_ID = "import-2026-03-01"
CAT = "cats/chelsea.jpg"
PLAIN = "plain.png"
SHOP = "shop-1"
URL = "https://images.example.org/chelsea.jpg"
QUEUE = {
    "waiting": 4180,
    "running": 32,
    "failed": 2,
    "oldest_age_s": 41.5,
    "rate_per_s": 98.4,
    "workers": 2,
    "paused": False,
}
HOOK = "https://hooks.example.org/match"


def _task(state: str, *, filepath: str | None = CAT, **extra: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    times = {"accepted": "2026-03-01T09:30:00.000Z", "started": None, "finished": None}
    request = {"request_id": "b1946ac92492d2347c6235b4d2611184"}
    return {
        "id": TASK_ID,
        "state": state,
        "action": "add",
        "collection": "default",
        "batch": None,
        "filepath": filepath,
        "error": None,
        "warning": None,
        "attempts": 0,
        "next_try": None,
        "cause": None,
        **times,
        **request,
    } | extra


def _in_batch(filepath: str, **extra: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"task": _task("pending", filepath=filepath, batch=BATCH_ID, **extra), "batch": BATCH_ID}


_BEGUN: dict[str, Any] = {"attempts": 1, "started": "2026-03-01T09:30:00.004Z", "finished": "2026-03-01T09:30:00.061Z"}
_PENDING = _task("pending")
_DELETION = _task("pending", action="delete_collection", collection=SHOP, filepath=None)
_CALLBACK = {"state": "pending", "attempts": 0, "error": None, "next": None}
_STORED = _task("succeeded", **_BEGUN)
_RETRIED = _task("pending", attempts=1)
_FAILED = _task(
    "failed", **_BEGUN, error={"code": "http_not_found", "message": "images.example.org answered with status 404"}
)
# An image without features.
_WARNING = WARNINGS[FEATURELESS]
_PLAIN = _task("succeeded", filepath=PLAIN, **_BEGUN, warning={"code": FEATURELESS, "message": _WARNING})
_FOUND = {
    "score": 100.0,
    "filepath": CAT,
    "metadata": {"album": "cats"},
    "orientation": "original",
    "matched_by": "signature",
}
_PLACE = {
    "query_overlap_percent": 62.3,
    "target_overlap_percent": 100.0,
    "transform": {"m11": 0.79, "m12": 0.0, "m13": 0.0, "m21": 0.0, "m22": 0.79, "m23": 52.0},
}
_WHOLE = {
    "query_overlap_percent": 100.0,
    "target_overlap_percent": 100.0,
    "transform": {"m11": 1.0, "m12": 0.0, "m13": 0.0, "m21": 0.0, "m22": 1.0, "m23": 0.0},
}
_RECORD = {
    "collection": "default",
    "filepath": CAT,
    "metadata": {"album": "cats"},
    "added": "2026-03-01T09:30:00.061Z",
    "width": 451,
    "height": 300,
    "featureless": False,
    "few_features": False,
    "url": URL,
    "sha256": "f452f3e1dd4c4870754a70b01c82efc9dbd504c7a5ce600b1cbe5c85d4207003",
}
_BAD_ITEM = {"status": "fail", "error": ["filepaths[1] is required"], "code": "missing_parameter"}
_BAD_LINE = {"status": "fail", "error": ["the URL's host is private"], "code": "private_address", "field": "url"}

# A request to a callback and its secret, which is plain text so that it does not look like a real one.
CALL_ID = "msg_0b6d1f0e7a7f4f0d9a3c5b8e2d4f6a81"
CALL_TIMESTAMP = 1_772_357_401
CALL_SECRET = f"whsec_{base64.b64encode(b'an example of a secret, not one!').decode()}"
CALL = {"type": "tasks.ended", "timestamp": _BEGUN["finished"], "tasks": [_STORED]}
_BATCH = {
    "id": BATCH_ID,
    "state": "running",
    "collection": "default",
    "total": 2000,
    "pending": 84,
    "running": 4,
    "succeeded": 1850,
    "superseded": 0,
    "failed": 62,
    "cancelled": 0,
    "failures": {"http_not_found": 41, "timeout": 21},
    "accepted": "2026-03-01T09:30:00.000Z",
    "ended": None,
    "rate_per_s": 140.0,
    "seconds_left": 1,
    "request_id": "b1946ac92492d2347c6235b4d2611184",
}
_ENDED = {"pending": 0, "running": 0, "ended": "2026-03-01T09:30:14.201Z", "rate_per_s": 140.8, "seconds_left": 0}
BATCH_CALL = {
    "type": "batch.ended",
    "timestamp": _ENDED["ended"],
    "batch": _BATCH | _ENDED | {"state": "ended", "succeeded": 1938},
}
CALL_BODY = json.dumps(CALL, separators=(",", ":"))

EXAMPLES: Mapping[str, Sequence[Example]] = {
    "add": (
        Example(
            title="Upload and wait",
            form={"image": File("chelsea.jpg"), "filepath": CAT, "metadata": '{"album": "cats"}', "wait": 10},
            extra={"task": _STORED},
        ),
        Example(
            title="By URL",
            form={"url": URL, "filepath": CAT, "metadata": '{"album": "cats"}'},
            http_status=202,
            extra={"task": _PENDING},
        ),
        Example(
            title="An image without features",
            form={"url": "https://images.example.org/plain.png", "filepath": PLAIN, "wait": 10},
            status="warn",
            error=[_WARNING],
            extra={"code": FEATURELESS, "task": _PLAIN},
        ),
        Example(
            title="With a callback and an idempotency key",
            form={"url": URL, "filepath": CAT, "callback_url": HOOK},
            headers={"Idempotency-Key": "import-2026-03-01/17"},
            http_status=202,
            extra={"task": _task("pending", callback=_CALLBACK)},
        ),
        Example(
            title="Two images, one without a filepath",
            form={"filepaths[0]": "coffee.jpg", "images[0]": File("coffee.jpg"), "images[1]": File("moose.jpg")},
            http_status=202,
            status="warn",
            error=["item 1: filepaths[1] is required"],
            result=[
                {"item": 0, "status": "ok", "error": []} | _in_batch("coffee.jpg"),
                {"item": 1, **_BAD_ITEM, "field": "filepaths[1]"},
            ],
        ),
    ),
    "batch": (
        Example(
            title="Two lines, one rejected",
            lines=[
                {"url": URL, "filepath": CAT, "metadata": {"album": "cats"}},
                {"url": "http://10.0.0.1/moose.jpg", "filepath": "moose.jpg"},
            ],
            result=[{"line": 1, "status": "ok", "error": [], **_in_batch(CAT)}, {"line": 2, **_BAD_LINE}],
        ),
        Example(
            title="With a callback, a batch id and an idempotency key",
            form={"callback_url": HOOK},
            headers={"Idempotency-Key": "import-2026-03-01", "X-Batch-ID": BATCH_ID},
            lines=[{"url": URL, "filepath": CAT}],
            result=[{"line": 1, "status": "ok", "error": [], **_in_batch(CAT, callback=_CALLBACK)}],
        ),
    ),
    "search": (
        Example(
            title="By upload",
            form={"image": File("chelsea.jpg"), "limit": 10},
            result=[_FOUND],
            extra={"mode": "auto"},
        ),
        Example(
            title="By a stored image, in one album",
            form={"filepath": CAT, "filter[album]": "cats", "all_orientations": False},
            result=[_FOUND | _WHOLE],
            extra={"mode": "auto"},
        ),
        Example(
            title="By signature and local features",
            form={"image": File("chelsea.jpg"), "mode": "thorough"},
            result=[_FOUND | {"score": 81.4, "matched_by": "local_features"} | _PLACE],
            extra={"mode": "thorough"},
        ),
        Example(
            title="By an image without features",
            form={"filepath": PLAIN},
            status="warn",
            error=[_WARNING],
            extra={"code": FEATURELESS, "mode": "auto"},
        ),
    ),
    "search_batch": (
        Example(
            title="By stored images, one unknown",
            lines=[{"filepath": CAT, "mode": "fast", "limit": 10}, {"filepath": "moose.jpg", "mode": "fast"}],
            result=[
                {"line": 1, "status": "ok", "error": [], "result": [_FOUND], "mode": "fast"},
                {
                    "line": 2,
                    "result": [],
                    "status": "fail",
                    "error": ["filepath: no image is stored under this filepath"],
                    "code": "unknown_filepath",
                    "field": "filepath",
                },
            ],
        ),
    ),
    "compare": (
        Example(
            title="Two uploads",
            form={"image1": File("chelsea.jpg"), "image2": File("coffee.jpg")},
            result=[{"score": 29.4, "matched_by": "signature"}],
            extra={"mode": "auto"},
        ),
        Example(
            title="An upload and a stored image",
            form={"image1": File("chelsea.jpg"), "filepath2": CAT},
            result=[{"score": 100.0, "matched_by": "signature"}],
            extra={"mode": "auto"},
        ),
        Example(
            title="By signatures only",
            form={"image1": File("chelsea.jpg"), "filepath2": CAT, "mode": "fast"},
            result=[{"score": 100.0, "matched_by": "signature"}],
            extra={"mode": "fast"},
        ),
    ),
    "delete": (
        Example(title="One", form={"filepath": "old.jpg"}),
        Example(title="Two", form={"filepaths[0]": "old.jpg", "filepaths[1]": "older.jpg"}),
        Example(
            title="Number of images in a folder",
            form={"filepath_prefix": "cats/", "dry_run": True},
            result=[1],
        ),
        Example(
            title="One folder with one image",
            form={"filepath_prefix": "cats/", "expect": 1},
            http_status=202,
            extra={"task": _task("pending", action="delete_images", filepath=None, batch=TASK_ID)},
        ),
    ),
    "count": (
        Example(title="All", result=[420]),
        Example(title="One album", form={"filter[album]": "cats"}, result=[1]),
        Example(title="One folder", form={"filepath_prefix": "cats/"}, result=[1]),
    ),
    "list": (
        Example(title="First page", form={"limit": 1}, result=[CAT], extra={"cursor": "PxsBcxTIMQ=="}),
        Example(
            title="At an offset, beyond the end",
            form={"limit": 2, "offset": 1},
            result=[],
            extra={"cursor": None},
        ),
    ),
    "images": (
        Example(
            title="One",
            form={"filepath": CAT},
            result=[_RECORD],
        ),
        Example(
            title="Page of a folder",
            form={"filepath_prefix": "cats/", "limit": 10},
            result=[_RECORD],
            extra={"cursor": None},
        ),
    ),
    "patch_image": (
        Example(
            title="One key",
            form={"filepath": CAT, "metadata": '{"year": 2026}'},
            result=[{"collection": "default", "filepath": CAT, "metadata": {"album": "cats", "year": 2026}}],
        ),
    ),
    "queue": (Example(title="At work", result=[QUEUE]),),
    "pause_queue": (Example(title="Paused", result=[QUEUE | {"paused": True}]),),
    "resume_queue": (Example(title="Resumed", result=[QUEUE]),),
    "collections": (
        Example(
            title="All",
            result=[
                {"name": "default", "images": 420, "max_images": None},
                {"name": SHOP, "images": 0, "max_images": None},
            ],
        ),
    ),
    "collection": (
        Example(title="One", path={"name": SHOP}, result=[{"name": SHOP, "images": 0, "max_images": None}]),
    ),
    "put_collection": (
        Example(
            title="A new one, at most 1,000 images",
            path={"name": "shop-2"},
            form={"max_images": 1000},
            http_status=201,
            result=[{"name": "shop-2", "images": 0, "max_images": 1000}],
        ),
        Example(
            title="No quota any more",
            path={"name": SHOP},
            result=[{"name": SHOP, "images": 0, "max_images": None}],
        ),
    ),
    "delete_collection": (Example(title="One", path={"name": SHOP}, http_status=202, extra={"task": _DELETION}),),
    "batches": (Example(title="Newest", form={"limit": 1}, result=[_BATCH], extra={"cursor": None}),),
    "one_batch": (Example(title="Running", path={"id": BATCH_ID}, result=[_BATCH]),),
    "cancel_batch": (
        Example(
            title="One",
            path={"id": BATCH_ID},
            result=[_BATCH | {"state": "cancelled", "pending": 0, "cancelled": 84}],
        ),
    ),
    "task": (Example(title="Stored", path={"id": TASK_ID}, result=[_STORED]),),
    "usage": (
        Example(
            title="Of this week",
            form={"days": 7},
            result=[
                {"key": "shop", "collection": "a", "requests": 120, "adds": 100, "searches": 20, "bytes": 5_400_000},
                {"key": None, "collection": None, "requests": 3, "adds": 0, "searches": 0, "bytes": 512},
            ],
            extra={"since": "2026-02-23T00:00:00.000Z", "until": "2026-03-01T09:30:00.000Z"},
        ),
    ),
    "tasks": (
        Example(title="Failed tasks", form={"state": "failed"}, result=[_FAILED], extra={"cursor": None}),
        Example(
            title="Of a batch",
            form={"batch": BATCH_ID, "limit": 1},
            result=[_FAILED | {"batch": BATCH_ID}],
            extra={"cursor": "succeeded:"},
        ),
    ),
    "retry_task": (Example(title="One", path={"id": TASK_ID}, http_status=202, result=[_RETRIED]),),
    "retry_tasks": (
        Example(
            title="All with the same code",
            form={"state": "failed", "code": "http_server_error"},
            http_status=202,
            result=[{"retried": 1, "left": {}}],
            extra={"cursor": None},
        ),
    ),
    "cancel_task": (
        Example(title="One", path={"id": TASK_ID}, result=[_task("cancelled", finished="2026-03-01T09:30:00.052Z")]),
    ),
    "ping": (Example(title="Alive"),),
    "livez": (Example(title="Alive"),),
    "metrics": (),
    "thumbnail": (),
    "readyz": (
        Example(
            title="Ready",
            extra={
                "checks": {
                    "store": {"reads": True, "writes": True, "detail": ""},
                    "redis": {"ok": True, "detail": ""},
                    "queue": {"paused": False},
                }
            },
        ),
    ),
}

FAILURES: Sequence[FailureExample] = (
    FailureExample(
        title="Missing parameter",
        endpoint="add",
        path="/add",
        form={"url": URL},
        code="missing_parameter",
        error="filepath is required",
        parameter="filepath",
    ),
    FailureExample(
        title="Misspelled parameter",
        endpoint="add",
        path="/add",
        form={"url": URL, "file_path": CAT},
        code="unknown_parameter",
        error="file_path is not a parameter of this endpoint; did you mean filepath?",
        parameter="file_path",
    ),
    FailureExample(
        title="Out of range",
        endpoint="search",
        path="/search",
        form={"filepath": CAT, "limit": 0},
        code="wrong_parameter",
        error="limit must be a whole number from 1 to 1000",
        parameter="limit",
    ),
    FailureExample(
        title="No API key",
        endpoint="add",
        code="key_required",
        error="API key required: send the header Authorization: Bearer KEY",
    ),
    FailureExample(
        title="Missing scope",
        endpoint="add",
        code="missing_scope",
        error='API key "website" lacks the scope write',
    ),
    FailureExample(
        title="Quota exceeded",
        endpoint="add",
        code="quota_exceeded",
        error="collection: the collection has as many images as its quota allows",
        parameter="collection",
    ),
    FailureExample(
        title="Unknown collection",
        endpoint="count",
        method="GET",
        path="/count",
        form={"collection": "nowhere"},
        code="unknown_collection",
        error="collection: the collection does not exist, or the API key may not use it",
        parameter="collection",
    ),
    FailureExample(
        title="Unknown filepath",
        endpoint="images",
        method="GET",
        path="/images",
        form={"filepath": "nowhere.jpg"},
        code="unknown_filepath",
        error="filepath: no image is stored under this filepath",
        parameter="filepath",
    ),
    FailureExample(
        title="Unknown task",
        endpoint="task",
        method="GET",
        path="/tasks/nobody",
        code="unknown_task",
        parameter="id",
    ),
    FailureExample(
        title="Wrong method",
        endpoint="add",
        method="GET",
        path="/add",
        code="method_not_allowed",
        error="/add accepts POST, not GET",
    ),
    FailureExample(
        title="Task already started",
        endpoint="cancel_task",
        code="not_pending",
        error="the task is running; only a pending task can be cancelled",
        parameter="id",
    ),
    FailureExample(
        title="Reused idempotency key",
        endpoint="add",
        code="idempotency_conflict",
        parameter="Idempotency-Key",
    ),
    FailureExample(
        title="Image too large",
        endpoint="add",
        code="too_large",
        error="image has 75,000,000 bytes; the limit is 67,108,864 (MATCH_MAX_IMAGE_BYTES)",
        parameter="image",
    ),
    FailureExample(
        title="URL too long",
        endpoint="",
        code="uri_too_long",
    ),
    FailureExample(
        title="Wrong media type",
        endpoint="add",
        path="/add",
        mimetype="text/plain",
        code="unsupported_media_type",
        error="Content-Type must be application/json, multipart/form-data or application/x-www-form-urlencoded",
        parameter="Content-Type",
    ),
    FailureExample(
        title="Not an image",
        endpoint="search",
        code="not_an_image",
        error="the data is text, such as a web page, not an image",
        parameter="image",
    ),
    FailureExample(
        title="Rate limit exceeded",
        endpoint="search",
        code="too_many_requests",
        error="too many requests: at most 100 per 1 second",
    ),
    FailureExample(
        title="Headers too large",
        endpoint="",
        code="headers_too_large",
    ),
    FailureExample(
        title="Internal error",
        endpoint="search",
        code="internal_error",
    ),
    FailureExample(
        title="Unsupported transfer encoding",
        endpoint="",
        code="unsupported_transfer_coding",
    ),
    FailureExample(
        title="Overloaded",
        endpoint="add",
        code="overloaded",
    ),
)
