"""Tasks over HTTP: accepted tasks can be listed, retried and cancelled while workers run."""

import json
import random
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from common.queue.admission import Admission
from common.queue.jobs import ENQUEUED_AT_HEADER, SINGLE_QUEUE
from common.queue.keys import OPEN, TASK, UPLOAD
from common.queue.ledger import Ledger
from common.queue.stale_tasks import StaleTasks
from common.queue.task_pages import TaskPages
from common.queue.tasks import QueuedTask, State
from common.redis.clock import now_ms
from common.uploads import RedisUploads, Uploads
from support.tasks import accept, fail, ledger_in, wait_for_open


@pytest.fixture
def ledger(real_redis: Redis) -> Ledger:
    return ledger_in(real_redis)


@pytest.fixture
def uploads(real_redis: Redis) -> Uploads:
    return RedisUploads(real_redis, admission=Admission(real_redis, max_percent=80), max_bytes=10_000_000)


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], real_redis: Redis, redis_server: Any) -> FlaskClient:
    return make_client(real_redis, broker=redis_server.url)


def messages(redis: Redis) -> list[Any]:
    return [json.loads(message) for message in redis.lrange(SINGLE_QUEUE, 0, -1)]


def sent_task_ids(redis: Redis) -> list[str]:
    bodies = [json.loads(b64decode(message["body"])) for message in messages(redis)]
    return [task_id for [sent, *_], *_ in bodies for task_id in ([sent] if isinstance(sent, str) else sent)]


def test_failures_are_listed_with_reason_times_attempts_and_filepath(client: FlaskClient, ledger: Ledger) -> None:
    [task_id] = accept(ledger, "cats/1")
    ledger.begin(task_id)
    fail(ledger, task_id, code="not_an_image")

    answer = client.get("/tasks?state=failed")

    [task] = answer.json["result"]
    assert (answer.status_code, answer.json["method"], answer.json["cursor"]) == (200, "tasks", None)
    assert (task["id"], task["filepath"], task["attempts"]) == (task_id, "cats/1", 1)
    assert task["error"] == {"code": "not_an_image", "message": "why"}
    assert all(task[name].endswith("Z") for name in ("accepted", "started", "finished"))


def test_pages_by_cursor_list_failures_newest_first(client: FlaskClient, ledger: Ledger) -> None:
    ids = accept(ledger, *(f"{n}" for n in range(25)))
    for task_id in ids:
        fail(ledger, task_id)
        sleep(0.002)  # the order of two failures within a millisecond is undefined
    listed: list[str] = []
    cursor = ""

    while cursor is not None:
        page = client.get("/tasks", query_string={"state": "failed", "limit": 10, "cursor": cursor}).json
        listed += [task["id"] for task in page["result"]]
        cursor = page["cursor"]

    assert listed == ids[::-1]


def test_failures_are_filtered_by_code_and_filepath_prefix(client: FlaskClient, ledger: Ledger) -> None:
    cat, dog, page = accept(ledger, "cats/1", "dogs/1", "cats/2")
    fail(ledger, cat, dog)
    fail(ledger, page, code="not_an_image")

    timeouts = client.get("/tasks?state=failed&code=timeout").json["result"]
    cats = client.get("/tasks?state=failed&filepath_prefix=cats/").json["result"]
    both = client.get("/tasks?state=failed&code=timeout&filepath_prefix=cats/").json["result"]

    assert {task["id"] for task in timeouts} == {cat, dog}
    assert {task["id"] for task in cats} == {cat, page}
    assert [task["id"] for task in both] == [cat]


def test_waiting_and_running_work_is_listed(client: FlaskClient, ledger: Ledger) -> None:
    waiting, running = accept(ledger, "a", "b")
    ledger.begin(running)

    listed = {
        state: [task["id"] for task in client.get(f"/tasks?state={state}").json["result"]]
        for state in ("pending", "running", "failed")
    }

    assert listed == {"pending": [waiting], "running": [running], "failed": []}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "state"),
        ("state=bogus", "state"),
        ("state=failed&limit=0", "limit"),
        ("state=failed&limit=1001", "limit"),
        ("state=failed&cursor=x", "cursor"),
        ("state=pending&code=timeout", "code"),
        ("state=failed&code=bogus", "code"),
        ("state=failed&code=", "code"),
        ("state=failed&code=not_failed", "code"),
        ("state=failed&filepath=a", "filepath"),
    ],
)
def test_wrong_parameter_of_a_task_list_is_named(client: FlaskClient, query: str, field: str) -> None:
    answer = client.get(f"/tasks?{query}")

    assert (answer.status_code, answer.json["field"]) == (400, field)


def test_unknown_code_is_refused_with_the_accepted_ones(client: FlaskClient) -> None:
    listed = client.get("/tasks?state=failed&code=timeuot")
    retried = client.post("/tasks/retry", data={"state": "failed", "code": "timeuot"})

    for answer in (listed, retried):
        assert (answer.status_code, answer.json["field"]) == (400, "code")
        [error] = answer.json["error"]
        assert error.startswith("code must be one of ")
        assert error.endswith("; did you mean timeout?")
        assert "store_error" in error


def test_retried_task_keeps_its_sequence_number_and_location(
    client: FlaskClient, ledger: Ledger, real_redis: Redis
) -> None:
    [task_id] = accept(ledger, "a")
    before = ledger.task(task_id)
    ledger.begin(task_id)
    fail(ledger, task_id)

    answer = client.post(f"/tasks/{task_id}/retry")

    after = ledger.task(task_id)
    [message] = messages(real_redis)
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/tasks/{task_id}")
    [task] = answer.json["result"]
    assert (task["state"], task["error"], task["attempts"]) == ("pending", None, 1)
    assert (task["started"], task["finished"]) == (None, None)
    assert before is not None
    assert after is not None
    assert after.seq == before.seq
    assert message["headers"][ENQUEUED_AT_HEADER] == int(real_redis.zscore(OPEN, task_id) or 0)


def test_retried_upload_does_not_expire(
    client: FlaskClient, ledger: Ledger, uploads: Uploads, real_redis: Redis
) -> None:
    upload_id = uploads.put(b"bytes")
    [task_id] = accept(ledger, "a", upload_id=upload_id)
    fail(ledger, task_id)

    client.post(f"/tasks/{task_id}/retry")

    assert real_redis.ttl(UPLOAD + upload_id) == -1


def test_retry_without_its_upload_is_refused(client: FlaskClient, ledger: Ledger, uploads: Uploads) -> None:
    upload_id = uploads.put(b"bytes")
    [task_id] = accept(ledger, "a", upload_id=upload_id)
    fail(ledger, task_id)
    uploads.drop([upload_id])

    answer = client.post(f"/tasks/{task_id}/retry")

    assert (answer.status_code, answer.json["code"]) == (409, "upload_lost")
    assert answer.json["task"]["state"] == "failed"


def test_only_failed_tasks_are_retried(client: FlaskClient, ledger: Ledger) -> None:
    pending, twice = accept(ledger, "a", "b")
    fail(ledger, twice)
    client.post(f"/tasks/{twice}/retry")

    answers = [client.post(f"/tasks/{task_id}/retry") for task_id in (pending, twice, "nobody")]

    assert [answer.status_code for answer in answers] == [409, 409, 404]
    assert [answer.json["code"] for answer in answers] == ["not_failed", "not_failed", "unknown_task"]
    assert answers[0].json["error"] == ["the task is pending; only a failed task can be retried"]


def test_failures_are_retried_page_by_page(client: FlaskClient, ledger: Ledger, real_redis: Redis) -> None:
    ids = accept(ledger, *(f"{n}" for n in range(7)))
    fail(ledger, *ids[:5])
    fail(ledger, *ids[5:], code="not_an_image")

    answers = []
    cursor = ""
    while cursor is not None:
        query = {"state": "failed", "code": "timeout", "limit": 2, "cursor": cursor}
        answers.append(client.post("/tasks/retry", query_string=query))
        cursor = answers[-1].json["cursor"]

    assert {answer.status_code for answer in answers} == {202}
    assert [answer.json["result"][0]["retried"] for answer in answers] == [2, 2, 1]
    assert len(sent_task_ids(real_redis)) == 5
    assert {task.id for task in TaskPages(real_redis).page(State.FAILED, limit=9).tasks} == set(ids[5:])


def test_lost_upload_does_not_stop_other_retries(client: FlaskClient, ledger: Ledger, uploads: Uploads) -> None:
    [lost] = accept(ledger, "a", upload_id=uploads.put(b"bytes"))
    [url] = accept(ledger, "b")
    fail(ledger, lost, url)
    uploads.drop(list(ledger.uploads_of([lost]).values()))

    answer = client.post("/tasks/retry", data={"state": "failed"})

    assert answer.json["result"] == [{"retried": 1, "left": {"upload_lost": 1}}]


def test_retry_of_all_requires_the_state(client: FlaskClient) -> None:
    answers = [client.post("/tasks/retry"), client.post("/tasks/retry?state=pending")]

    assert [(answer.status_code, answer.json["field"]) for answer in answers] == [(400, "state")] * 2


def test_pending_task_is_cancelled_and_its_upload_deleted(
    client: FlaskClient, ledger: Ledger, uploads: Uploads
) -> None:
    upload_id = uploads.put(b"bytes")
    uploads.keep(upload_id)
    [task_id] = accept(ledger, "a", upload_id=upload_id)

    answers = [client.delete(f"/tasks/{task_id}") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.json["result"][0]["state"] for answer in answers} == {"cancelled"}
    assert uploads.get(upload_id) is None
    assert uploads.stored_bytes() == 0
    assert ledger.begin(task_id) is None


def test_started_or_ended_task_is_not_cancelled(client: FlaskClient, ledger: Ledger) -> None:
    running, failed = accept(ledger, "a", "b")
    ledger.begin(running)
    fail(ledger, failed)

    answers = [client.delete(f"/tasks/{task_id}") for task_id in (running, failed, "nobody")]

    assert [answer.status_code for answer in answers] == [409, 409, 404]
    assert [answer.json["code"] for answer in answers] == ["not_pending", "not_pending", "unknown_task"]
    assert answers[0].json["error"] == ["the task is running; only a pending task can be cancelled"]


def test_waiting_request_is_answered_when_its_task_is_cancelled(client: FlaskClient, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        fields = {"filepath": "a", "url": "http://example.org/a", "wait": "30"}
        waiting = pool.submit(client.application.test_client().post, "/add", data=fields)
        [task_id] = wait_for_open(real_redis)
        client.delete(f"/tasks/{task_id}")
        answer = waiting.result()

    assert (answer.status_code, answer.json["status"]) == (200, "warn")
    assert answer.json["error"] == ["the task was cancelled"]


def test_concurrent_cancel_and_begin_have_one_winner(ledger: Ledger, real_redis: Redis) -> None:
    other = ledger_in(real_redis)
    ids = accept(ledger, *(f"{n}" for n in range(200)))

    def cancel_or_begin(task_id: str) -> tuple[bool, bool]:
        with ThreadPoolExecutor(2) as pool:
            begun, previous = pool.submit(other.begin, task_id), pool.submit(ledger.cancel_many, [task_id])
            return begun.result() is not None, previous.result() == [State.PENDING]

    outcomes = Counter(map(cancel_or_begin, ids))

    assert set(outcomes) <= {(True, False), (False, True)}
    assert sum(outcomes.values()) == 200


def test_concurrent_retries_send_each_task_once(
    make_client: Callable[..., FlaskClient], ledger: Ledger, real_redis: Redis, redis_server: Any
) -> None:
    clients = [make_client(real_redis, broker=redis_server.url) for _ in range(2)]
    ids = accept(ledger, *(f"{n}" for n in range(60)))
    fail(ledger, *ids)
    shuffled = [random.Random(n).sample(ids, len(ids)) for n in range(2)]

    def retry_all(client: FlaskClient, task_ids: list[str]) -> list[int]:
        own = client.application.test_client()
        return [own.post(f"/tasks/{task_id}/retry").status_code for task_id in task_ids]

    with ThreadPoolExecutor(2) as pool:
        statuses = [status for replies in pool.map(retry_all, clients, shuffled) for status in replies]

    assert Counter(statuses) == {202: 60, 409: 60}
    assert len(sent_task_ids(real_redis)) == 60


def test_sweeper_ignores_a_retried_task(ledger: Ledger, real_redis: Redis) -> None:
    [task_id] = accept(ledger, "a")
    old = QueuedTask(task_id=task_id, queue=SINGLE_QUEUE, enqueued_at=now_ms(real_redis) - 1)
    fail(ledger, task_id)
    ledger.retry([task_id])

    assert StaleTasks(real_redis).touch([old], at=now_ms(real_redis)) == []


def test_retry_of_an_expired_task_is_refused(client: FlaskClient, ledger: Ledger, real_redis: Redis) -> None:
    [task_id] = accept(ledger, "a")
    fail(ledger, task_id)
    real_redis.hset(TASK + task_id, "accepted", now_ms(real_redis) - 61_000)

    answer = client.post(f"/tasks/{task_id}/retry")

    assert (answer.status_code, answer.json["code"]) == (409, "too_late")
