"""The examples of the documentation, sent to the real app."""

import hashlib
import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from PIL import Image
from redis import Redis

from api.description.code_samples import ORIGIN
from api.description.examples import (
    BATCH_ID,
    CAT,
    EXAMPLES,
    FAILURES,
    PLAIN,
    TASK_ID,
    URL,
    Example,
    FailureExample,
    File,
)
from api.description.openapi import LINE_SCHEMA
from api.endpoints import FORM_METHODS, Endpoint
from api.forms.reading import LINE_TYPES
from api.routes import ENDPOINTS
from common.images.local_features.extraction import extract
from common.images.signature import LENGTH, sign
from common.queue.tasks import State
from common.queue.usage import Counted, Label, UsageCounts
from common.store.base import Record
from support.tasks import end, ledger_in, wait_for_open

IMAGES = Path(__file__).resolve().parents[2] / "examples" / "images"
RUNS = [
    pytest.param(endpoint, method, example, id=f"{method} {endpoint.path}, {example.title}")
    for endpoint in ENDPOINTS
    for example in EXAMPLES[endpoint.name]
    for method in endpoint.methods
    if example.method in {"", method}
]
# The state of the task before the example's request.
ENDED_AS = {"task": State.SUCCEEDED, "tasks": State.FAILED, "retry_task": State.FAILED, "retry_tasks": State.FAILED}
ENDS = {"code": "http_status", "error": "the host answered with status 404"}
ADDED_URL = "https://images.example.org/a.jpg"
# Of the batch before the example's request: a task of it runs, and another waits.
FAILURES_OF_BATCH = ("http_not_found", "timeout")


@pytest.fixture
def described(client: FlaskClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json
    return document


@pytest.fixture
def prepared(client: FlaskClient, memory_store: Any, request: pytest.FixtureRequest) -> FlaskClient:
    """Only the cat of the examples is stored, and the image without features for the examples that search by it."""
    pixels = np.asarray(Image.open(IMAGES / Path(CAT).name).convert("RGB"))
    about = {"metadata": {"album": "cats"}, "added": 1_772_357_400_061, "width": 451, "height": 300}
    sha256 = hashlib.sha256((IMAGES / Path(CAT).name).read_bytes()).digest()
    memory_store.create_collection("shop-1")
    kept = {"signatures": (sign(pixels),), "features": extract(pixels, width=451, height=300).encode()}
    memory_store.put([Record(filepath=CAT, seq=1, **kept, sha256=sha256, url=URL, **about)])
    if "example" in request.fixturenames and request.getfixturevalue("example").form.get("filepath") == PLAIN:
        memory_store.put([Record(filepath=PLAIN, seq=2, signatures=(np.zeros(LENGTH, np.int8),), **about)])
    name = request.getfixturevalue("endpoint").name if "endpoint" in request.fixturenames else ""
    if name in {"batches", "one_batch", "cancel_batch"}:
        run_batch(client, request.getfixturevalue("real_redis"))
    if name == "usage":
        counts = {(Label("shop", "a"), Counted.REQUESTS): 1, (Label(), Counted.REQUESTS): 1}
        UsageCounts(request.getfixturevalue("real_redis")).add(counts, writer="another process", number=1)
    return client


def add_batch(client: FlaskClient, count: int) -> list[str]:
    """Add images as the batch of the examples, and return the ids of their tasks."""
    urls = {f"urls[{nth}]": ADDED_URL for nth in range(count)}
    form = urls | {f"filepaths[{nth}]": f"{nth}.jpg" for nth in range(count)}
    reply = client.post("/add", data=form, headers={"X-Batch-ID": BATCH_ID})
    return [one["task"]["id"] for one in reply.json["result"]]


def run_batch(client: FlaskClient, redis: Redis) -> None:
    ids = add_batch(client, 2 + len(FAILURES_OF_BATCH))
    for id_ in ids[1:]:
        ledger_in(redis).begin(id_)
    for id_, code in zip(ids[2:], FAILURES_OF_BATCH, strict=True):
        end(redis, id_, State.FAILED, code=code)


@pytest.fixture
def task_id(client: FlaskClient, real_redis: Redis, request: pytest.FixtureRequest) -> str:
    """A task in the state that the example needs."""
    name = request.getfixturevalue("endpoint").name
    if not name.endswith(("task", "tasks")):
        return TASK_ID
    if request.getfixturevalue("example").form.get("batch"):
        [added] = add_batch(client, 1)
    else:
        added = client.post("/add", data={"url": ADDED_URL, "filepath": CAT}).json["task"]["id"]
    if name in ENDED_AS:
        ledger_in(real_redis).begin(added)
        end(real_redis, added, ENDED_AS[name], **(ENDS if ENDED_AS[name] is State.FAILED else {}))
    return str(added)


def end_first_task(redis: Redis, example: Example) -> None:
    task_id, *_ = wait_for_open(redis)
    ledger_in(redis).begin(task_id)
    end(redis, task_id, warning=example.extra.get("code", ""))


@contextmanager
def ending(redis: Redis, example: Example) -> Iterator[None]:
    """End the task for which the example waits."""
    with ThreadPoolExecutor() as pool:
        ends = pool.submit(end_first_task, redis, example) if "wait" in example.form else None
        yield
        if ends is not None:
            ends.result()


def send(client: FlaskClient, endpoint: Endpoint, method: str, example: Example, task_id: str) -> Any:
    path = endpoint.path
    for name, value in example.path.items():
        path = path.replace(f"<{name}>", task_id if value == TASK_ID else value)
    if endpoint.line:
        body = "".join(f"{json.dumps(line)}\n" for line in example.lines)
        about = {"query_string": example.form, "headers": example.headers}
        return client.open(path, method=method, data=body, content_type=LINE_TYPES[0], **about)
    form = {name: sent(value) for name, value in example.form.items()}
    where = "data" if method in FORM_METHODS else "query_string"
    return client.open(path, method=method, headers=example.headers, **{where: form})


def sent(value: Any) -> Any:
    if isinstance(value, File):
        return (IMAGES / value).open("rb"), value
    return value if isinstance(value, str) else json.dumps(value)


def typed(client: FlaskClient, command: str, task_id: str) -> Any:
    """Send the request of this curl command."""
    line, _, lines = command.partition(" <<'END'\n")
    program, *words, url = shlex.split(line)
    flags = list(zip(words[::2], words[1::2], strict=True))
    form = dict(value.split("=", 1) for flag, value in flags if flag == "-F")
    has_body = bool(form or lines)
    options: dict[str, Any] = {
        "method": next((value for flag, value in flags if flag == "-X"), "POST" if has_body else "GET"),
        "headers": [value.split(": ", 1) for flag, value in flags if flag == "-H"],
        "data": lines.removesuffix("END") or {name: sent(file_or_text(value)) for name, value in form.items()},
    }
    assert (program, {flag for flag, _ in flags} - {"-F", "-X", "-H", "--data-binary"}) == ("curl", set())
    assert not set(url) & set("[]{}"), "curl would read these as a URL pattern"
    return client.open(url.replace(TASK_ID, task_id).removeprefix(ORIGIN), **options)


def file_or_text(value: str) -> str:
    return File(value[1:]) if value.startswith("@") else value


def shape(value: Any) -> Any:
    """Return the names and the types of their values, on which clients rely."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shape(inner) for inner in value]
    return "number" if type(value) in {int, float} else type(value).__name__


@pytest.fixture
def answer(
    prepared: FlaskClient, endpoint: Endpoint, method: str, example: Example, task_id: str, real_redis: Redis
) -> Iterator[Any]:
    with ending(real_redis, example):
        yield send(prepared, endpoint, method, example, task_id)


@pytest.mark.parametrize(("endpoint", "method", "example"), RUNS)
def test_example_is_answered_as_documented(
    answer: Any, endpoint: Endpoint, method: str, example: Example, described: dict[str, Any]
) -> None:
    expected = list(example.result) if endpoint.line else example.body(endpoint.name)

    got = [json.loads(line) for line in answer.data.splitlines()] if endpoint.line else answer.json

    assert answer.status_code == example.http_status
    assert shape(got) == shape(expected)
    operation = described["paths"][endpoint.path.replace("<", "{").replace(">", "}")][method.lower()]
    [media] = operation["responses"][f"{answer.status_code}"]["content"].values()
    schema = {**media.get(LINE_SCHEMA, media["schema"]), "components": described["components"]}
    for one in got if endpoint.line else [got]:
        Draft202012Validator(schema).validate(one)


@pytest.mark.parametrize(("endpoint", "method", "example"), RUNS)
def test_code_sample_is_answered_as_documented(
    prepared: FlaskClient,
    described: dict[str, Any],
    endpoint: Endpoint,
    method: str,
    example: Example,
    task_id: str,
    real_redis: Redis,
) -> None:
    operation = described["paths"][endpoint.path.replace("<", "{").replace(">", "}")][method.lower()]
    [command] = [one["source"] for one in operation["x-codeSamples"] if one["label"] == example.title]

    with ending(real_redis, example):
        answer = typed(prepared, command, task_id)

    expected = list(example.result) if endpoint.line else [example.body(endpoint.name)]
    assert answer.status_code == example.http_status
    assert [shape(json.loads(one)) for one in documents(answer.get_data(as_text=True), endpoint)] == shape(expected)


def documents(text: str, endpoint: Endpoint) -> list[str]:
    return text.splitlines() if endpoint.line else [text]


@pytest.mark.parametrize("failure", [one for one in FAILURES if one.path], ids=lambda one: one.title)
def test_failure_is_answered_as_documented(prepared: FlaskClient, failure: FailureExample) -> None:
    where = "data" if failure.method == "POST" else "query_string"
    options: dict[str, Any] = {where: failure.form}
    if failure.mimetype:
        options = {"data": b"{}", "content_type": failure.mimetype}

    answer = prepared.open(failure.path, method=failure.method, **options)

    assert (answer.status_code, answer.json) == (failure.http_status, failure.body())


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_a_parameter_of_the_description_is_refused(client: FlaskClient, path: str) -> None:
    assert client.get(path, query_string={"a": "b"}).status_code == 400
