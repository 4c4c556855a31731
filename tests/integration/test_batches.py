"""Batches over HTTP: clients follow them, continue them after a broken connection, and cancel them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from api.access.keys import Keyring, Scope, hash_of
from common.queue.keys import BATCH_REQUESTS, TASK, UPLOAD
from common.queue.ledger import Ledger
from match_client import Match, NewImage
from support.browsers import serving_app
from support.images import gradient, upload
from support.tasks import fail, ledger_in, succeed

LINE_TYPE = "application/x-ndjson"
SECRETS = {"one": "secret-1", "two": "secret-2", "shop": "secret-3"}


@pytest.fixture
def ledger(real_redis: Redis) -> Ledger:
    return ledger_in(real_redis)


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], real_redis: Redis) -> FlaskClient:
    return make_client(real_redis, max_open=1000)


@pytest.fixture
def keyed(make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Any) -> FlaskClient:
    """A client of an API with two keys for all collections and one for the collection `shop`."""
    tables = [
        f'[[keys]]\nname = "{name}"\nsha256 = "{hash_of(secret)}"\nscopes = {json.dumps([*Scope])}\n'
        for name, secret in SECRETS.items()
    ]
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(tables) + 'collections = ["shop"]\n')
    return make_client(real_redis, max_open=1000, keyring=Keyring(file))


def as_key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name]}"}


def send(client: FlaskClient, count: int, *, query: str = "", lines: str = "", **headers: str) -> TestResponse:
    """Send a batch of images by URL."""
    body = lines or "".join(
        json.dumps({"url": f"http://images.example.org/{number}", "filepath": f"{number}"}) + "\n"
        for number in range(count)
    )
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/add/batch{query}", data=body, content_type=LINE_TYPE, headers=names)


def outcomes(response: TestResponse) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def ids_of(response: TestResponse) -> list[str]:
    return [outcome["task"]["id"] for outcome in outcomes(response)]


def progress(client: FlaskClient, batch_id: str, **headers: str) -> dict[str, Any]:
    [batch] = client.get(f"/batches/{batch_id}", headers=headers).json["result"]
    return batch


def test_one_request_answers_how_far_a_batch_is(client: FlaskClient, ledger: Ledger) -> None:
    sent = send(client, 20)
    batch_id = sent.headers["X-Batch-ID"]
    task_ids = ids_of(sent)
    for task_id in task_ids[:19]:
        ledger.begin(task_id)
    succeed(ledger, *task_ids[:12])
    fail(ledger, *task_ids[12:17], code="http_not_found")
    fail(ledger, task_ids[17])

    batch = progress(client, batch_id)

    assert {outcome["batch"] for outcome in outcomes(sent)} == {batch_id}
    assert (batch["state"], batch["total"], batch["pending"], batch["running"]) == ("running", 20, 1, 1)
    assert (batch["succeeded"], batch["failed"]) == (12, 6)
    assert list(batch["failures"].items()) == [("http_not_found", 5), ("timeout", 1)]
    assert batch["rate_per_s"] > 0
    assert batch["seconds_left"] >= 1
    assert batch["ended"] is None


def test_a_form_of_many_is_a_batch(client: FlaskClient, ledger: Ledger) -> None:
    form = {
        "filepaths[0]": "a",
        "urls[0]": "http://images.example.org/a",
        "filepaths[1]": "b",
        "urls[1]": "ftp://images.example.org/b",
    }

    sent = client.post("/add", data=form, headers={"X-Batch-ID": "mine"})

    first, second = sent.json["result"]
    assert (sent.headers["X-Batch-ID"], first["batch"], first["task"]["batch"]) == ("mine", "mine", "mine")
    assert "batch" not in second
    succeed(ledger, first["task"]["id"])
    assert progress(client, "mine") | {"state": "ended", "total": 1} == progress(client, "mine")


def test_the_python_client_adds_to_a_collection(client: FlaskClient) -> None:
    images = [NewImage(image="http://images.example.org/1", filepath="1"), NewImage(image=gradient(), filepath="2")]

    with serving_app(client.application) as url, Match(url) as match:
        outcomes = [next(match.add_many([image], collection="shop", batch="mine")) for image in images]
        batch = match.batch("mine")

    assert [(outcome.status, outcome.code, outcome.batch) for outcome in outcomes] == [("ok", None, "mine")] * 2
    assert [outcome.task.collection for outcome in outcomes if outcome.task is not None] == ["shop"] * 2
    assert (batch.collection, batch.total) == ("shop", 2)


def test_a_single_add_has_no_batch(client: FlaskClient) -> None:
    sent = client.post("/add", data={"filepath": "a", "url": "http://images.example.org/a"})

    assert sent.json["task"]["batch"] is None
    assert "X-Batch-ID" not in sent.headers


def test_a_broken_upload_is_continued(client: FlaskClient) -> None:
    send(client, 3, X_Batch_ID="import.1")

    again = send(client, 5, X_Batch_ID="import.1")

    assert {outcome["batch"] for outcome in outcomes(again)} == {"import.1"}
    assert progress(client, "import.1")["total"] == 8


def test_a_replayed_batch_keeps_its_id_and_counts(client: FlaskClient) -> None:
    first = send(client, 3, Idempotency_Key="k")

    second = send(client, 4, Idempotency_Key="k")

    assert first.headers["X-Batch-ID"] == second.headers["X-Batch-ID"]
    assert {outcome["batch"] for outcome in outcomes(second)} == {first.headers["X-Batch-ID"]}
    assert progress(client, first.headers["X-Batch-ID"])["total"] == 4


def test_collections_of_lines_have_their_own_batches(client: FlaskClient) -> None:
    lines = [{"filepath": "a"}, {"filepath": "b", "collection": "shop"}, {"filepath": "c", "collection": "shop"}]
    body = "".join(json.dumps({"url": "http://images.example.org/", **line}) + "\n" for line in lines)

    own = outcomes(send(client, 0, lines=body))
    chosen = outcomes(send(client, 0, lines=body, X_Batch_ID="mine"))

    assert own[0]["batch"] != own[1]["batch"] == own[2]["batch"]
    assert progress(client, own[1]["batch"])["collection"] == "shop"
    assert [outcome.get("code") for outcome in chosen] == [None, "batch_conflict", "batch_conflict"]


@pytest.mark.parametrize("wrong", ["", "a b", "-a", "a" * 65, "ä"])
def test_an_invalid_batch_id_is_rejected(client: FlaskClient, wrong: str) -> None:
    response = send(client, 1, X_Batch_ID=wrong)

    assert (response.status_code, response.json["field"]) == (400, "X-Batch-ID")


def test_another_key_or_collection_is_a_conflict(keyed: FlaskClient) -> None:
    send(keyed, 1, X_Batch_ID="mine", **as_key("one"))

    key = send(keyed, 1, X_Batch_ID="mine", **as_key("two"))
    collection = send(keyed, 1, query="?collection=other", X_Batch_ID="mine", **as_key("one"))

    for response in (key, collection):
        assert (response.status_code, response.json["code"], response.json["field"]) == (
            409,
            "batch_conflict",
            "X-Batch-ID",
        )
    assert progress(keyed, "mine", **as_key("one"))["total"] == 1


def test_only_keys_of_its_collection_see_a_batch(keyed: FlaskClient) -> None:
    [task_id] = ids_of(send(keyed, 1, X_Batch_ID="mine", **as_key("one")))
    send(keyed, 1, query="?collection=shop", X_Batch_ID="shops", **as_key("shop"))
    shop = as_key("shop")

    hidden = [keyed.get("/batches/mine", headers=shop), keyed.delete("/batches/mine", headers=shop)]
    hidden += [keyed.get(f"/tasks?batch=mine&collection={name}", headers=shop) for name in ("shop", "default")]
    ids = keyed.get(f"/tasks?ids={task_id}&collection=shop", headers=shop).json["result"]

    assert [response.status_code for response in hidden] == [404] * 4
    assert ids == []
    listed = keyed.get("/batches?collection=shop", headers=shop).json["result"]
    assert [batch["id"] for batch in listed] == ["shops"]
    assert keyed.get("/batches", headers=shop).status_code == 404
    assert progress(keyed, "mine", **as_key("two"))["pending"] == 1


def test_batches_are_listed_newest_first(client: FlaskClient, real_redis: Redis) -> None:
    for number in range(3):
        send(client, 1, X_Batch_ID=f"b{number}")
        real_redis.zadd("match:batches:of:default", {f"b{number}": number})
    listed, cursor = [], ""

    while cursor is not None:
        page = client.get("/batches", query_string={"limit": 2, "cursor": cursor}).json
        listed.append([batch["id"] for batch in page["result"]])
        cursor = page["cursor"]

    assert listed == [["b2", "b1"], ["b0"]]


def test_a_cancelled_batch_keeps_nothing_waiting(client: FlaskClient, ledger: Ledger, real_redis: Redis) -> None:
    form = {f"filepaths[{number}]": f"{number}" for number in range(3)}
    files = {f"images[{number}]": upload() for number in range(3)}
    sent = client.post("/add", data=form | files, headers={"X-Batch-ID": "mine"})
    running = sent.json["result"][0]["task"]["id"]
    ledger.begin(running)

    cancelled = client.delete("/batches/mine")
    again = client.delete("/batches/mine")
    more = send(client, 1, X_Batch_ID="mine")

    [batch] = cancelled.json["result"]
    assert (batch["state"], batch["pending"], batch["running"], batch["cancelled"]) == ("cancelled", 0, 1, 2)
    assert again.json["result"][0]["cancelled"] == 2
    assert (more.status_code, more.json["code"]) == (409, "batch_cancelled")
    assert len(real_redis.keys(f"{UPLOAD}*")) == 1
    succeed(ledger, running)
    assert progress(client, "mine")["ended"] is not None


def test_an_unknown_batch_is_not_found(client: FlaskClient) -> None:
    replies = [client.get("/batches/b"), client.delete("/batches/b"), client.get("/tasks?batch=b")]
    replies.append(client.post("/tasks/retry?state=failed&batch=b"))

    assert [(reply.status_code, reply.json["code"]) for reply in replies] == [(404, "unknown_batch")] * 4


def test_tasks_of_a_batch_are_listed_and_retried(client: FlaskClient, ledger: Ledger) -> None:
    stored, failed, waiting = ids_of(send(client, 3, X_Batch_ID="mine"))
    [other] = ids_of(send(client, 1, X_Batch_ID="other"))
    succeed(ledger, stored)
    fail(ledger, failed, other)

    of_batch = client.get("/tasks?batch=mine").json["result"]
    of_state = client.get("/tasks?batch=mine&state=succeeded").json["result"]
    retried = client.post("/tasks/retry?state=failed&batch=mine").json["result"]

    assert [task["id"] for task in of_batch] == [waiting, failed, stored]
    assert [task["id"] for task in of_state] == [stored]
    assert retried == [{"retried": 1, "left": {}}]
    assert (progress(client, "mine")["pending"], progress(client, "other")["failed"]) == (2, 1)


def test_tasks_are_listed_by_ids_and_request(client: FlaskClient, ledger: Ledger) -> None:
    sent = send(client, 3)
    first, second, third = ids_of(sent)
    succeed(ledger, second)
    query = {"ids[0]": third, "ids[1]": "unknown", "ids[2]": second}

    by_ids = client.get("/tasks", query_string=query).json["result"]
    stored = client.get("/tasks", query_string=query | {"state": "succeeded"}).json["result"]
    by_request = client.get("/tasks", query_string={"request_id": sent.headers["X-Request-ID"]}).json["result"]

    assert [task["id"] for task in by_ids] == [third, second]
    assert [task["id"] for task in stored] == [second]
    assert {task["id"] for task in by_request} == {first, second, third}


def test_a_batch_ends_when_its_request_has(client: FlaskClient, real_redis: Redis) -> None:
    send(client, 2, lines="no json\n", X_Batch_ID="mine")

    batch = progress(client, "mine")

    assert (batch["state"], batch["total"]) == ("ended", 0)
    assert not real_redis.exists(BATCH_REQUESTS)
    assert not real_redis.keys(f"{TASK}*")
