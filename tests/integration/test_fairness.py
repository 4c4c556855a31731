"""Fairness between tasks: a flood of batch tasks, a host that hangs, a long backlog."""

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pytest
from redis import Redis

from api.use_cases.manage_tasks import ManageTasks
from common.config import Settings
from common.queue.items import AddItem
from common.queue.jobs import BATCH_QUEUE, CHUNK, CONSUMED_QUEUES, ENQUEUED_AT_HEADER, SINGLE_QUEUE
from common.queue.keys import OPEN, TASK, UNACKED, UNACKED_INDEX
from common.queue.publisher import Publisher
from common.queue.task_pages import TaskPages
from common.queue.tasks import State, Task
from common.wiring import Dependencies, build_dependencies
from support.http_servers import Handler, LocalServer, serving
from support.images import gradient, noise
from support.sweeping import make_sweeper
from support.tasks import accept_images, accept_upload, enqueue, fail, task_of, wait_for_ends
from support.waiting import wait_until
from workers.sweeper import Sweeper

WITHIN_S = 60
VISIBILITY_TIMEOUT_S = 300
LONG_AGO_MS = 20 * 60 * 1000
# The tasks that one request accepts.
BLOCK = 1000


def finished(parts: Dependencies, task: Task) -> int:
    finished_ms = task_of(parts.ledger, task.id).finished
    assert finished_ms is not None
    return finished_ms


def seq_of(parts: Dependencies, filepath: str) -> int:
    return parts.store.records([filepath])[filepath].seq


def queue_of(parts: Dependencies, task: Task) -> str:
    return (parts.redis.hget(TASK + task.id, "queue") or b"").decode()


def test_flood_of_batch_tasks_does_not_delay_single_adds(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    flood = accept_images(parts, 500, queue=BATCH_QUEUE)
    publisher.send(flood, queue=BATCH_QUEUE)
    start_worker()
    wait_until(lambda: parts.store.count() > 0, "the flood is worked on")

    singles = [accept_upload(parts, f"single/{n}", noise(1000 + n)) for n in range(5)]
    publisher.send(singles, queue=SINGLE_QUEUE)
    wait_for_ends(parts.ledger, [*singles, *flood])

    last = max(finished(parts, task) for task in singles)
    meanwhile = sum(singles[0].accepted < finished(parts, task) <= last for task in flood)
    assert parts.store.count() == 505
    assert meanwhile < 100


def test_large_batch_delays_no_batch_of_another_collection(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    large = accept_images(parts, 3 * CHUNK, queue=BATCH_QUEUE)
    small = accept_images(parts, CHUNK, queue=BATCH_QUEUE, collection="small")
    for batch in (large, small):
        publisher.send(batch, queue=queue_of(parts, batch[0]))

    # A worker with one thread takes one message at a time.
    start_worker(MATCH_WORKER_THREADS="1")
    wait_for_ends(parts.ledger, [*large, *small])

    last = max(finished(parts, task) for task in small)
    assert sum(finished(parts, task) <= last for task in large) <= CHUNK


@pytest.mark.parametrize("newer", [SINGLE_QUEUE, BATCH_QUEUE])
@pytest.mark.parametrize("worked_first", [SINGLE_QUEUE, BATCH_QUEUE])
def test_newer_add_wins_across_queues(
    parts: Dependencies, publisher: Publisher, start_worker: Any, newer: str, worked_first: str
) -> None:
    older = SINGLE_QUEUE if newer == BATCH_QUEUE else BATCH_QUEUE
    tasks = {queue: accept_upload(parts, "same", noise(n), queue=queue) for n, queue in enumerate((older, newer))}
    start_worker()

    for queue in sorted(tasks, key=lambda queue: queue != worked_first):
        publisher.send([tasks[queue]], queue=queue)
        wait_for_ends(parts.ledger, [tasks[queue]])

    assert seq_of(parts, "same") == tasks[newer].seq


def test_a_retry_loses_against_a_newer_request(parts: Dependencies, publisher: Publisher, start_worker: Any) -> None:
    old, new = accept_upload(parts, "same", noise(1)), accept_upload(parts, "same", noise(2))
    fail(parts.ledger, old.id)
    start_worker()
    publisher.send([new], queue=SINGLE_QUEUE)
    wait_for_ends(parts.ledger, [new])

    rejections = ManageTasks(parts.ledger, parts.uploads, publisher).retry([old.id])
    wait_for_ends(parts.ledger, [old])

    assert rejections == [None]
    assert task_of(parts.ledger, old.id).state is State.SUPERSEDED
    assert seq_of(parts, "same") == new.seq


def test_a_cancelled_task_is_acknowledged_without_work(
    parts: Dependencies, publisher: Publisher, start_worker: Any, real_redis: Redis
) -> None:
    cancelled, other = (accept_upload(parts, name, gradient()) for name in ("cancelled", "other"))
    publisher.send([cancelled, other], queue=SINGLE_QUEUE)
    ManageTasks(parts.ledger, parts.uploads, publisher).cancel(cancelled.id)

    start_worker()
    wait_for_ends(parts.ledger, [other])
    wait_until(lambda: not real_redis.llen(SINGLE_QUEUE) and not real_redis.hlen(UNACKED), "no message is left")

    ended = task_of(parts.ledger, cancelled.id)
    assert (ended.state, ended.attempts) == (State.CANCELLED, 0)
    assert parts.store.filepaths(offset=0, limit=9).filepaths == ["other"]


@pytest.mark.parametrize("kind", ["folder", "redis"])
def test_uploads_are_kept_in_the_configured_place(
    environment: dict[str, str], publisher: Publisher, start_worker: Any, kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "uploads"
    own = environment["REDIS_URL"].removesuffix("0") + "1"
    environment["MATCH_UPLOADS_URL"] = f"file://{folder}" if kind == "folder" else own
    parts = build_dependencies(Settings.from_env(environment))
    parts.store.prepare()
    tasks = accept_images(parts, 10)
    before = parts.uploads.stored_bytes()
    publisher.send(tasks, queue=SINGLE_QUEUE)

    start_worker()
    wait_for_ends(parts.ledger, tasks)
    assert before == sum(len(noise(n)) for n in range(10))
    assert parts.store.count() == 10
    # The last drop follows the end of its task.
    if kind == "folder":
        wait_until(lambda: list(folder.iterdir()) == [], "the folder is empty")
    else:
        wait_until(lambda: parts.uploads.stored_bytes() == 0, "no upload is left")
    parts.close()


class Web(LocalServer):
    """A server whose `/slow/…` pages are answered when `go_on` is set; it counts concurrent requests."""

    def __init__(self) -> None:
        super().__init__(Pages)
        self.go_on = Event()
        self.most_at_once: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._lock = Lock()

    @contextmanager
    def counted(self, kind: str) -> Iterator[None]:
        with self._lock:
            self._now[kind] += 1
            self.most_at_once[kind] = max(self.most_at_once[kind], self._now[kind])
        yield
        with self._lock:
            self._now[kind] -= 1


class Pages(Handler):
    server: Web
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        kind = self.path.split("/")[1]
        with self.server.counted(kind):
            if kind == "slow":
                self.server.go_on.wait(WITHIN_S)
            body = noise(0)
        self.reply(body=body)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web()) as web:
        yield web
        web.go_on.set()


def test_hanging_host_has_few_downloads_and_delays_no_other(
    environment: dict[str, str], publisher: Publisher, start_worker: Any, web: Web, real_redis: Redis
) -> None:
    environment |= {
        "MATCH_FETCH_PER_HOST": "3",
        "MATCH_FETCH_ALLOW": f"127.0.0.1:{web.server_port},localhost:{web.server_port}",
        "MATCH_FETCH_TIMEOUT_S": "60",
    }
    parts = build_dependencies(Settings.from_env(environment))
    parts.store.prepare()
    slow = [AddItem(filepath=f"slow/{n}", url=f"http://localhost:{web.server_port}/slow/{n}") for n in range(60)]
    quick = [AddItem(filepath=f"quick/{n}", url=f"http://127.0.0.1:{web.server_port}/quick/{n}") for n in range(30)]
    hanging, others = (enqueue(parts.ledger, jobs, queue=SINGLE_QUEUE) for jobs in (slow, quick))
    publisher.send([*hanging, *others], queue=SINGLE_QUEUE)

    for _ in range(2):
        start_worker()
    wait_for_ends(parts.ledger, others)
    running = TaskPages(parts.redis).page(State.RUNNING, limit=100).tasks
    waiting = TaskPages(parts.redis).page(State.PENDING, limit=100).tasks
    messages = {queue: real_redis.llen(queue) for queue in CONSUMED_QUEUES}
    web.go_on.set()
    wait_for_ends(parts.ledger, hanging)

    tasks = [parts.ledger.task(task.id) for task in (*hanging, *others)]
    assert (len(running), len(waiting)) == (3, 57)
    assert {task.attempts for task in waiting} == {0}
    assert set(messages.values()) == {0}
    assert web.most_at_once["slow"] == 3
    assert web.most_at_once["quick"] <= 3
    assert {(task.state, task.attempts) for task in tasks if task} == {(State.SUCCEEDED, 1)}
    parts.close()


def test_backlog_of_50_000_repeats_no_message(parts: Dependencies, publisher: Publisher, real_redis: Redis) -> None:
    tasks = waiting_long(parts, publisher, real_redis, count=50_000)
    hold(real_redis, count=64)
    sent: list[str] = []
    sweepers = [sweeper(parts, sent) for _ in range(2)]

    for one in sweepers[:1] * 6 + sweepers[1:]:
        one.sweep()
    twice = list(sent)
    # Lose the rest of the block: its tasks were accepted at once, and equal timestamps cannot distinguish them.
    real_redis.ltrim(SINGLE_QUEUE, 0, -(BLOCK - 64) - 1)
    for one in sweepers:
        one.sweep()

    assert twice == []
    assert Counter(sent) == Counter(task.id for task in tasks[64:BLOCK])


def waiting_long(parts: Dependencies, publisher: Publisher, redis: Redis, *, count: int) -> list[Task]:
    """Accept tasks as if that had been long ago, each with a message in the publisher's form."""
    tasks: list[Task] = []
    for start in range(0, count, BLOCK):
        jobs = [AddItem(filepath=f"{n}", url="http://example.org/") for n in range(start, start + BLOCK)]
        tasks += enqueue(parts.ledger, jobs, queue=SINGLE_QUEUE)
    publisher.send(tasks[:1], queue=SINGLE_QUEUE)
    like = json.loads(redis.rpop(SINGLE_QUEUE) or b"")
    _, named, rest = json.loads(b64decode(like["body"]))
    pipe = redis.pipeline(transaction=False)
    for task in tasks:
        at = task.accepted - LONG_AGO_MS
        headers = {**like["headers"], ENQUEUED_AT_HEADER: at, "argsrepr": f"('{task.id}',)"}
        body = b64encode(json.dumps([[task.id], named, rest]).encode()).decode()
        pipe.lpush(SINGLE_QUEUE, json.dumps({**like, "headers": headers, "body": body}))
        pipe.zadd(OPEN, {task.id: at})
    pipe.execute()
    return tasks


def hold(redis: Redis, *, count: int) -> None:
    """Reserve so many messages as a worker does."""
    for tag in range(count):
        message = json.loads(redis.rpop(SINGLE_QUEUE) or b"")
        redis.zadd(UNACKED_INDEX, {f"{tag}": tag})
        redis.hset(UNACKED, f"{tag}", json.dumps([message, "", SINGLE_QUEUE]))


def sweeper(parts: Dependencies, sent: list[str]) -> Sweeper:
    def send(task_ids: Sequence[str], _queue: str, _at: int) -> None:
        sent.extend(task_ids)

    return make_sweeper(parts, send, lost_after_s=2 * VISIBILITY_TIMEOUT_S)
