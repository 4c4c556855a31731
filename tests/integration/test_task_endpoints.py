"""Tasks over HTTP: what was accepted can be seen, sent again and cancelled, whoever else is at work."""

import json
import random
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
from support.tasks import accept, fail
from support.waiting import wait_until


@pytest.fixture
def ledger(real_redis: Redis) -> Ledger:
    return Ledger(real_redis, max_open=1000, finished_keep_s=60, failed_keep_s=60)


@pytest.fixture
def uploads(real_redis: Redis) -> Uploads:
    return RedisUploads(real_redis, admission=Admission(real_redis, max_percent=80), max_bytes=10_000_000)


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], real_redis: Redis, redis_server: Any) -> FlaskClient:
    return make_client(real_redis, broker=redis_server.url)


def messages(redis: Redis) -> list[Any]:
    return [json.loads(message) for message in redis.lrange(SINGLE_QUEUE, 0, -1)]


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


def test_a_walk_by_cursor_meets_every_failure_once_the_newest_first(client: FlaskClient, ledger: Ledger) -> None:
    ids = accept(ledger, *(f"{n}" for n in range(25)))
    for task_id in ids:
        fail(ledger, task_id)
        sleep(0.002)  # each in a millisecond of its own
    met: list[str] = []
    cursor = ""

    while cursor is not None:
        page = client.get("/tasks", query_string={"state": "failed", "limit": 10, "cursor": cursor}).json
        met += [task["id"] for task in page["result"]]
        cursor = page["cursor"]

    assert met == ids[::-1]


def test_a_list_is_kept_to_a_code_and_a_start_of_the_filepath(client: FlaskClient, ledger: Ledger) -> None:
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
        ("state=succeeded", "state"),
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
def test_a_list_that_cannot_be_given_names_what_is_wrong(client: FlaskClient, query: str, field: str) -> None:
    answer = client.get(f"/tasks?{query}")

    assert (answer.status_code, answer.json["field"]) == (400, field)


def test_a_code_that_no_task_can_have_is_told_with_those_that_one_can(client: FlaskClient) -> None:
    listed = client.get("/tasks?state=failed&code=timeuot")
    retried = client.post("/tasks/retry", data={"state": "failed", "code": "timeuot"})

    for answer in (listed, retried):
        assert (answer.status_code, answer.json["field"]) == (400, "code")
        [told] = answer.json["error"]
        assert told.startswith("code must be one of ")
        assert told.endswith("; did you mean timeout?")
        assert "store_error" in told


def test_a_failed_task_is_sent_again_and_keeps_its_place(
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
    [told] = answer.json["result"]
    assert (told["state"], told["error"], told["attempts"]) == ("pending", None, 1)
    assert (told["started"], told["finished"]) == (None, None)
    assert before is not None
    assert after is not None
    assert after.seq == before.seq
    assert message["headers"][ENQUEUED_AT_HEADER] == int(real_redis.zscore(OPEN, task_id) or 0)


def test_a_retried_upload_stays_as_long_as_its_task_is_open(
    client: FlaskClient, ledger: Ledger, uploads: Uploads, real_redis: Redis
) -> None:
    upload_id = uploads.put(b"bytes")
    [task_id] = accept(ledger, "a", upload_id=upload_id)
    fail(ledger, task_id)

    client.post(f"/tasks/{task_id}/retry")

    assert real_redis.ttl(UPLOAD + upload_id) == -1


def test_a_retry_says_when_the_upload_is_gone(client: FlaskClient, ledger: Ledger, uploads: Uploads) -> None:
    upload_id = uploads.put(b"bytes")
    [task_id] = accept(ledger, "a", upload_id=upload_id)
    fail(ledger, task_id)
    uploads.drop([upload_id])

    answer = client.post(f"/tasks/{task_id}/retry")

    assert (answer.status_code, answer.json["code"]) == (409, "upload_lost")
    assert answer.json["task"]["state"] == "failed"


def test_only_failed_tasks_are_sent_again(client: FlaskClient, ledger: Ledger) -> None:
    pending, twice = accept(ledger, "a", "b")
    fail(ledger, twice)
    client.post(f"/tasks/{twice}/retry")

    answers = [client.post(f"/tasks/{task_id}/retry") for task_id in (pending, twice, "nobody")]

    assert [answer.status_code for answer in answers] == [409, 409, 404]
    assert [answer.json["code"] for answer in answers] == ["not_failed", "not_failed", "unknown_task"]
    assert answers[0].json["error"] == ["the task is pending; only a failed task can be retried"]


def test_many_are_sent_again_page_by_page(client: FlaskClient, ledger: Ledger, real_redis: Redis) -> None:
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
    assert len(messages(real_redis)) == 5
    assert {task.id for task in TaskPages(real_redis).page(State.FAILED, limit=9).tasks} == set(ids[5:])


def test_those_whose_upload_is_gone_stop_no_others(client: FlaskClient, ledger: Ledger, uploads: Uploads) -> None:
    [lost] = accept(ledger, "a", upload_id=uploads.put(b"bytes"))
    [url] = accept(ledger, "b")
    fail(ledger, lost, url)
    uploads.drop(list(ledger.uploads_of([lost]).values()))

    answer = client.post("/tasks/retry", data={"state": "failed"})

    assert answer.json["result"] == [{"retried": 1, "left": {"upload_lost": 1}}]


def test_a_retry_of_all_asks_for_the_state(client: FlaskClient) -> None:
    answers = [client.post("/tasks/retry"), client.post("/tasks/retry?state=pending")]

    assert [(answer.status_code, answer.json["field"]) for answer in answers] == [(400, "state")] * 2


def test_a_task_that_waits_is_cancelled_and_its_upload_goes(
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


def test_what_has_begun_or_ended_is_not_cancelled(client: FlaskClient, ledger: Ledger) -> None:
    running, failed = accept(ledger, "a", "b")
    ledger.begin(running)
    fail(ledger, failed)

    answers = [client.delete(f"/tasks/{task_id}") for task_id in (running, failed, "nobody")]

    assert [answer.status_code for answer in answers] == [409, 409, 404]
    assert [answer.json["code"] for answer in answers] == ["not_pending", "not_pending", "unknown_task"]
    assert answers[0].json["error"] == ["the task is running; only a pending task can be cancelled"]


def test_who_waits_for_a_cancelled_task_is_told(client: FlaskClient, real_redis: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        fields = {"filepath": "a", "url": "http://example.org/a", "wait": "30"}
        waiting = pool.submit(client.application.test_client().post, "/add", data=fields)
        found = wait_until(lambda: real_redis.zrange(OPEN, 0, -1), "a task is open")
        client.delete(f"/tasks/{found[0].decode()}")
        answer = waiting.result()

    assert (answer.status_code, answer.json["status"]) == (200, "warn")
    assert answer.json["error"] == ["the task was cancelled"]


def test_cancelling_and_beginning_at_once_do_one_of_both(ledger: Ledger, real_redis: Redis) -> None:
    other = Ledger(real_redis, max_open=1000, finished_keep_s=60, failed_keep_s=60)
    ids = accept(ledger, *(f"{n}" for n in range(200)))

    def cancel_or_begin(task_id: str) -> tuple[bool, bool]:
        with ThreadPoolExecutor(2) as pool:
            begun, was = pool.submit(other.begin, task_id), pool.submit(ledger.cancel, task_id)
            return begun.result() is not None, was.result() is State.PENDING

    outcomes = Counter(map(cancel_or_begin, ids))

    assert set(outcomes) <= {(True, False), (False, True)}
    assert sum(outcomes.values()) == 200


def test_retries_of_two_processes_at_once_send_each_task_once(
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
        statuses = [status for found in pool.map(retry_all, clients, shuffled) for status in found]

    assert Counter(statuses) == {202: 60, 409: 60}
    assert len(messages(real_redis)) == 60


def test_a_retry_is_no_match_for_the_sweeper(ledger: Ledger, real_redis: Redis) -> None:
    [task_id] = accept(ledger, "a")
    old = QueuedTask(task_id=task_id, queue=SINGLE_QUEUE, enqueued_at=now_ms(real_redis) - 1)
    fail(ledger, task_id)
    ledger.retry([task_id])

    assert StaleTasks(real_redis).touch([old], at=now_ms(real_redis)) == []


def test_a_retry_of_work_accepted_too_long_ago_says_so(client: FlaskClient, ledger: Ledger, real_redis: Redis) -> None:
    [task_id] = accept(ledger, "a")
    fail(ledger, task_id)
    real_redis.hset(TASK + task_id, "accepted", now_ms(real_redis) - 61_000)

    answer = client.post(f"/tasks/{task_id}/retry")

    assert (answer.status_code, answer.json["code"]) == (409, "too_late")
