"""A request sent twice is done once: the same key has the same tasks for every client at every moment."""

import hashlib
import json
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from threading import Barrier
from time import sleep
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.datastructures import Headers

from api.access.keys import Keyring
from common.config import Settings
from common.errors import QueueUnavailable
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE
from common.queue.keys import OPEN, TASK, UPLOAD
from common.queue.ledger import Ledger
from common.queue.tasks import State
from common.redis.client import connect
from support.images import gradient, upload
from support.tasks import end

URL = "http://example.org/cat.jpg"
HOOK = "https://hooks.example.org/"
KEY = {"Idempotency-Key": "import 17"}
NDJSON = {"Content-Type": "application/x-ndjson"}
ONE = {"url": URL, "filepath": "one"}
A_DAY_S = 86_400


def add(client: FlaskClient, data: dict[str, Any] | None = None, **headers: str) -> Any:
    return client.post("/add", data=data or ONE, headers=headers or KEY)


def batch(client: FlaskClient, *filepaths: str, key: str = "import 17", query: Any = None) -> Any:
    lines = "".join(json.dumps({"url": URL, "filepath": filepath}) + "\n" for filepath in filepaths)
    return client.post("/add/batch", data=lines, headers={**NDJSON, "Idempotency-Key": key}, query_string=query)


def outcomes(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.data.splitlines()]


def uploads(redis: Redis) -> list[bytes]:
    return list(redis.scan_iter(f"{UPLOAD}*"))


def test_the_same_request_has_the_same_task(client: FlaskClient, real_redis: Redis) -> None:
    first = add(client)

    second = add(client)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json == second.json
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert (real_redis.zcard(OPEN), real_redis.llen(SINGLE_QUEUE)) == (1, 1)


def test_an_upload_sent_again_is_held_once(client: FlaskClient, real_redis: Redis) -> None:
    first = add(client, {"image": upload(), "filepath": "one"})

    second = add(client, {"image": upload(), "filepath": "one"})

    assert second.json["task"]["id"] == first.json["task"]["id"]
    assert len(uploads(real_redis)) == 1


def test_other_keys_and_no_key_are_other_tasks(client: FlaskClient) -> None:
    answers = [add(client), add(client, **{"Idempotency-Key": "import 18"}), client.post("/add", data=ONE)]

    assert len({answer.json["task"]["id"] for answer in answers}) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"url": f"{URL}?other", "filepath": "one"},
        {"url": URL, "filepath": "two"},
        {"url": URL, "filepath": "one", "metadata": '{"album": "cats"}'},
        {"url": URL, "filepath": "one", "callback_url": HOOK},
        {"image": upload(), "filepath": "one"},
    ],
)
def test_same_key_for_a_different_request_is_a_conflict(
    client: FlaskClient, real_redis: Redis, other: dict[str, Any]
) -> None:
    add(client)

    answer = add(client, other)

    assert (answer.status_code, answer.json["code"], answer.json["field"]) == (
        409,
        "idempotency_conflict",
        "Idempotency-Key",
    )
    assert real_redis.zcard(OPEN) == 1
    assert uploads(real_redis) == []


def test_other_bytes_under_the_same_key_are_a_conflict(client: FlaskClient, real_redis: Redis) -> None:
    add(client, {"image": upload(), "filepath": "one"})

    answer = add(client, {"image": upload(gradient(shade=9)), "filepath": "one"})

    assert answer.status_code == 409
    assert len(uploads(real_redis)) == 1


def test_order_of_metadata_does_not_matter(client: FlaskClient) -> None:
    first = add(client, ONE | {"metadata": '{"a": 1, "b": 2}'})

    second = add(client, ONE | {"metadata": '{"b":2,"a":1}'})

    assert second.json["task"]["id"] == first.json["task"]["id"]


def one(client: FlaskClient) -> list[dict[str, Any]]:
    return [add(client).json]


def one_of_many(client: FlaskClient) -> list[dict[str, Any]]:
    return list(add(client, many("one")).json["result"])


def one_line(client: FlaskClient) -> list[dict[str, Any]]:
    return outcomes(batch(client, "one"))


@pytest.mark.parametrize(("first", "second"), [*permutations([one, one_of_many, one_line], 2)])
def test_same_key_for_another_form_is_a_conflict(
    client: FlaskClient, real_redis: Redis, first: Any, second: Any
) -> None:
    [accepted] = first(client)

    [refused] = second(client)

    assert (accepted["status"], refused["status"], refused["code"]) == ("ok", "fail", "idempotency_conflict")
    assert real_redis.zcard(OPEN) == 1


def test_two_keys_in_one_request_are_refused(client: FlaskClient, real_redis: Redis) -> None:
    headers = Headers([("Idempotency-Key", "import 17"), ("Idempotency-Key", "import 18")])

    answer = client.post("/add", data=ONE, headers=headers)

    assert (answer.status_code, answer.json["field"]) == (400, "Idempotency-Key")
    assert real_redis.zcard(OPEN) == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\tb", "a,b"])
def test_invalid_key_is_refused_with_its_field(client: FlaskClient, real_redis: Redis, key: str) -> None:
    answer = add(client, **{"Idempotency-Key": key})

    assert (answer.status_code, answer.json["field"]) == (400, "Idempotency-Key")
    assert real_redis.zcard(OPEN) == 0


def test_key_of_maximum_length_is_accepted(client: FlaskClient) -> None:
    assert add(client, **{"Idempotency-Key": "~" * 255}).status_code == 202


def test_refused_request_is_not_remembered(client: FlaskClient) -> None:
    wrong = add(client, {"url": "http://192.0.2.1/", "filepath": "one"})

    right = add(client)

    assert (wrong.status_code, right.status_code) == (400, 202)


def test_concurrent_requests_have_one_task(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    clients = [make_client(real_redis) for _ in range(8)]
    for round_ in range(10):
        together = Barrier(len(clients))

        def send(client: FlaskClient, key: str = f"round {round_}", together: Barrier = together) -> Any:
            data = {"image": upload(), "filepath": "one"}
            together.wait()
            return add(client, data, **{"Idempotency-Key": key})

        with ThreadPoolExecutor(len(clients)) as pool:
            answers = list(pool.map(send, clients))

        assert {answer.status_code for answer in answers} == {202}
        [task_id] = {answer.json["task"]["id"] for answer in answers}
        assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
        assert real_redis.zcard(OPEN) == len(uploads(real_redis)) == 1
        assert json.loads(real_redis.hget(TASK + task_id, "job") or b"")["upload"] in str(uploads(real_redis)[0])
        end(real_redis, task_id, State.CANCELLED)
        real_redis.delete(*uploads(real_redis))


def test_different_concurrent_requests_have_one_winner(
    make_client: Callable[..., FlaskClient], real_redis: Redis
) -> None:
    clients = [make_client(real_redis) for _ in range(8)]
    together = Barrier(len(clients))

    def send(number: int) -> int:
        together.wait()
        return int(add(clients[number], {"url": URL, "filepath": f"{number}"}).status_code)

    with ThreadPoolExecutor(len(clients)) as pool:
        statuses = sorted(pool.map(send, range(len(clients))))

    assert statuses == [202] + [409] * 7
    assert real_redis.zcard(OPEN) == 1


def test_task_is_remembered_for_a_day_after_its_end(client: FlaskClient, real_redis: Redis) -> None:
    task_id = add(client).json["task"]["id"]

    end(real_redis, task_id, State.SUCCEEDED)

    answer = add(client)
    assert A_DAY_S - 600 < int(real_redis.ttl(TASK + task_id)) <= A_DAY_S
    assert (answer.status_code, answer.json["task"]["state"]) == (200, "succeeded")
    assert answer.headers["Idempotency-Replayed"] == "true"


def test_cancelled_task_is_remembered(client: FlaskClient, real_redis: Redis) -> None:
    task_id = add(client).json["task"]["id"]

    client.delete(f"/tasks/{task_id}")

    assert int(real_redis.ttl(TASK + task_id)) > A_DAY_S - 600
    assert add(client).json["task"]["state"] == "cancelled"


def test_failure_is_replayed_with_its_reason(client: FlaskClient, real_redis: Redis) -> None:
    task_id = add(client).json["task"]["id"]
    end(real_redis, task_id, State.FAILED, code="http_status", error="404")

    answer = add(client)

    assert (answer.status_code, answer.json["code"], answer.json["task"]["id"]) == (422, "http_status", task_id)


def test_warning_is_replayed_with_its_code(client: FlaskClient, real_redis: Redis) -> None:
    task_id = add(client).json["task"]["id"]
    end(real_redis, task_id, warning="featureless")

    answers = [add(client) for _ in range(2)]

    for answer in answers:
        assert (answer.status_code, answer.json["status"], answer.json["code"]) == (200, "warn", "featureless")
        assert (answer.json["task"]["id"], answer.headers["Idempotency-Replayed"]) == (task_id, "true")


def test_task_without_a_key_has_the_usual_retention(client: FlaskClient, real_redis: Redis) -> None:
    task_id = client.post("/add", data=ONE).json["task"]["id"]

    end(real_redis, task_id, State.SUCCEEDED)

    assert int(real_redis.ttl(TASK + task_id)) <= 60


def test_replay_is_answered_while_the_backlog_is_full(
    make_client: Callable[..., FlaskClient], real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(real_redis, max_open=1)
    first = add(client, {"image": upload(), "filepath": "one"})

    refused = add(client, {"image": upload(), "filepath": "one"}, **{"Idempotency-Key": "other"})
    again = add(client, {"image": upload(), "filepath": "one"})

    assert (refused.status_code, again.status_code) == (503, 202)
    assert again.json["task"]["id"] == first.json["task"]["id"]
    monkeypatch.setattr("common.queue.admission.Admission.check", refuse)
    assert add(client, {"image": upload(), "filepath": "one"}).status_code == 202


def refuse(*_: object) -> None:
    raise QueueUnavailable("no memory left")


def test_a_replay_waits_for_the_same_task(client: FlaskClient, real_redis: Redis) -> None:
    task_id = add(client).json["task"]["id"]

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(add, client, ONE | {"wait": "30"})
        sleep(0.3)
        end(real_redis, task_id, State.SUCCEEDED)

    answer = waiting.result()
    assert (answer.status_code, answer.json["task"]["id"]) == (200, task_id)
    assert answer.headers["Idempotency-Replayed"] == "true"


def many(*filepaths: str) -> dict[str, str]:
    return {f"urls[{number}]": URL for number in range(len(filepaths))} | {
        f"filepaths[{number}]": filepath for number, filepath in enumerate(filepaths)
    }


def test_repeated_items_are_replayed_and_new_ones_added(client: FlaskClient) -> None:
    first = add(client, many("a", "b"))

    again, more = add(client, many("a", "b")), add(client, many("a", "other", "c"))

    ids = [one["task"]["id"] for one in first.json["result"]]
    assert [one["task"]["id"] for one in again.json["result"]] == ids
    assert [one["replayed"] for one in again.json["result"]] == [True, True]
    assert again.headers["Idempotency-Replayed"] == "true"
    same, conflict, new = more.json["result"]
    assert (same["task"]["id"], same["replayed"]) == (ids[0], True)
    assert (conflict["status"], conflict["code"]) == ("fail", "idempotency_conflict")
    assert (new["status"], "replayed" in new) == ("ok", False)
    assert "Idempotency-Replayed" not in more.headers


def test_repeated_batch_replays_its_half_and_adds_the_rest(
    make_client: Callable[..., FlaskClient], real_redis: Redis
) -> None:
    client = make_client(real_redis, max_open=1000)
    names = [f"{number}" for number in range(300)]
    first = batch(client, *names[:150])

    second = batch(client, *names)

    half, whole = outcomes(first), outcomes(second)
    assert [one["task"]["id"] for one in whole[:150]] == [one["task"]["id"] for one in half]
    assert [one.get("replayed", False) for one in whole] == [True] * 150 + [False] * 150
    assert (first.headers.get("Idempotency-Replayed"), second.headers["Idempotency-Replayed"]) == (None, "true")
    assert real_redis.zcard(OPEN) == 300
    assert sorted(sent(real_redis, BATCH_QUEUE)) == sorted(one["task"]["id"] for one in whole)


def test_repeated_batch_warns_of_images_without_features(client: FlaskClient, real_redis: Redis) -> None:
    first = outcomes(batch(client, "photo", "plain"))
    for one, warning in zip(first, ("", "featureless"), strict=True):
        end(real_redis, one["task"]["id"], warning=warning)

    second = outcomes(batch(client, "photo", "plain"))

    assert [(one["status"], one.get("code"), one["replayed"]) for one in second] == [
        ("ok", None, True),
        ("warn", "featureless", True),
    ]


def test_replay_header_of_a_batch_ignores_its_outcomes(client: FlaskClient) -> None:
    add(client, **{"Idempotency-Key": "one key"})

    first, second = (batch(client, "", key="one key") for _ in range(2))

    assert [one["status"] for one in outcomes(first) + outcomes(second)] == ["fail", "fail"]
    assert (first.headers.get("Idempotency-Replayed"), second.headers["Idempotency-Replayed"]) == (None, "true")


def test_batch_with_a_broken_connection_is_sent_again(client: FlaskClient, real_redis: Redis) -> None:
    lines = b"".join(json.dumps({"url": URL, "filepath": name}).encode() + b"\n" for name in "abcd")
    cut, declared = lines[: len(lines) // 2 + 9], {"CONTENT_LENGTH": f"{len(lines)}"}
    broken = client.post("/add/batch", data=cut, headers=NDJSON | KEY, environ_overrides=declared)

    whole = outcomes(batch(client, *"abcd"))

    before = outcomes(broken)
    assert [one.get("code") for one in before] == [None, None, "truncated_body"]
    assert [one["task"]["id"] for one in whole[:2]] == [one["task"]["id"] for one in before[:2]]
    assert [one.get("replayed", False) for one in whole] == [True, True, False, False]
    assert real_redis.zcard(OPEN) == 4


def sent(redis: Redis, queue: str) -> list[str]:
    """Return the tasks of all messages in the queue."""
    bodies = [json.loads(b64decode(json.loads(message)["body"]))[0][0] for message in redis.lrange(queue, 0, -1)]
    return [task_id for ids in bodies for task_id in (ids if isinstance(ids, list) else [ids])]


def test_different_line_is_a_conflict_of_that_line(client: FlaskClient) -> None:
    batch(client, "a", "b", "c")

    first, second, third = outcomes(batch(client, "a", "other", "c"))

    assert (first["status"], third["status"]) == ("ok", "ok")
    assert (second["line"], second["code"], second["field"]) == (2, "idempotency_conflict", "Idempotency-Key")


def test_repeated_batch_replays_while_the_backlog_is_full(
    make_client: Callable[..., FlaskClient], real_redis: Redis
) -> None:
    client = make_client(real_redis, max_open=2)

    first, second = (outcomes(batch(client, "a", "b", "c")) for _ in range(2))

    assert [one["status"] for one in first] == [one["status"] for one in second] == ["ok", "ok", "fail"]
    assert [one.get("replayed") for one in second] == [True, True, None]
    assert (second[2]["code"], real_redis.zcard(OPEN)) == ("overloaded", 2)


def test_without_redis_requests_with_a_key_are_refused(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(connect("redis://127.0.0.1:1/0"))

    assert add(client).status_code == 503
    assert {one["code"] for one in outcomes(batch(client, "a", "b"))} == {"queue_unavailable"}


def test_upload_survives_an_enqueue_without_a_reply(
    client: FlaskClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = Ledger.enqueue

    def enqueue_without_reply(*args: Any, **options: Any) -> Any:
        enqueue(*args, **options)
        raise QueueUnavailable("Redis does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "enqueue", enqueue_without_reply)
        lost = add(client, {"image": upload(), "filepath": "one"})

    again = add(client, {"image": upload(), "filepath": "one"})

    [kept] = uploads(real_redis)
    job = json.loads(real_redis.hget(TASK + again.json["task"]["id"], "job") or b"")
    assert (lost.status_code, again.status_code) == (503, 202)
    assert kept.decode().endswith(job["upload"])


def test_enqueue_repeated_by_the_client_keeps_task_and_upload(
    client: FlaskClient, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = Ledger.enqueue

    def enqueue_twice(*args: Any, **options: Any) -> Any:
        enqueue(*args, **options)
        return enqueue(*args, **options)

    monkeypatch.setattr(Ledger, "enqueue", enqueue_twice)

    answer = add(client, {"image": upload(), "filepath": "one"})

    [kept] = uploads(real_redis)
    assert answer.status_code == 202
    assert real_redis.ttl(kept) == -1
    assert sent(real_redis, SINGLE_QUEUE) == [answer.json["task"]["id"]]


def test_each_api_key_has_keys_of_its_own(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Any
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(
        "".join(
            f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\nscopes = ["write"]\n'
            for name in ("first", "second")
        )
    )
    client = make_client(real_redis, keyring=Keyring(file))

    answers = [add(client, **KEY, Authorization=f"Bearer {name}") for name in ("first", "second", "first")]

    ids = [answer.json["task"]["id"] for answer in answers]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://example.org/", "forbidden_scheme"),
        ("http://192.0.2.1/", "private_address"),
        ("https://example.org:8443/", "forbidden_port"),
        ("https://user:secret@example.org/", "forbidden_userinfo"),
        ("nonsense", "bad_url"),
        ("https://example.org/" + "x" * 8192, "bad_url"),
        ("https://example.org/" + "ä" * 2800, "bad_url"),
    ],
)
def test_invalid_callback_url_is_refused(client: FlaskClient, real_redis: Redis, url: str, code: str) -> None:
    answers = [
        client.post("/add", data=ONE | {"callback_url": url}),
        client.post("/add", data=many("a") | {"callback_url": url}),
        batch(client, "a", query={"callback_url": url}),
    ]

    assert {(one.status_code, one.json["code"], one.json["field"]) for one in answers} == {(400, code, "callback_url")}
    assert real_redis.zcard(OPEN) == 0


@pytest.mark.parametrize("field", ["callback_url", "url"])
def test_another_scheme_is_refused_with_the_accepted_ones(client: FlaskClient, field: str) -> None:
    answer = client.post("/add", data=ONE | {field: "ftp://example.org/"})

    assert answer.json["error"] == [f"{field}: the URL must start with http:// or https://, not with ftp:"]


def test_without_a_secret_there_are_no_callbacks(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    client = make_client(real_redis, settings=Settings())

    answer = client.post("/add", data=ONE | {"callback_url": HOOK})

    assert (answer.status_code, answer.json["code"], answer.json["field"]) == (
        400,
        "no_webhook_secret",
        "callback_url",
    )
    assert "MATCH_WEBHOOK_SECRET" in answer.json["error"][0]


def test_callback_is_shown_without_its_url(client: FlaskClient, real_redis: Redis) -> None:
    hook = "HTTPS://Hooks.Example.org/a?token=1"
    tasks = [
        client.post("/add", data=ONE | {"callback_url": hook}).json["task"],
        *(one["task"] for one in client.post("/add", data=many("a", "b") | {"callback_url": hook}).json["result"]),
        *(one["task"] for one in outcomes(batch(client, "a", "b", query={"callback_url": hook}))),
    ]

    kept = {real_redis.hget(TASK + task["id"], "callback") for task in tasks}

    assert kept == {b"https://hooks.example.org:443/a?token=1"}
    pending = {"state": "pending", "attempts": 0, "error": None, "next": None}
    assert [task["callback"] for task in tasks] == [pending] * 5
    [shown] = client.get(f"/tasks/{tasks[0]['id']}").json["result"]
    assert shown == tasks[0]
    assert "token" not in json.dumps(shown)
