"""Real workers on a real Redis: what was accepted is stored, in the right order, whoever dies."""

import random
import signal
from typing import Any

from celery import Celery
from redis import Redis

from api.publisher import Publisher
from common.config import Settings
from common.queue.broker import QUEUE_SETTINGS
from common.queue.failures import Failures
from common.queue.host_limits import HostSlots
from common.queue.jobs import ADD_TASK, BATCH_QUEUE, CHUNK, ENQUEUED_AT_HEADER, SINGLE_QUEUE
from common.queue.keys import OPEN, UNACKED, UNACKED_INDEX, UPLOAD
from common.queue.leases import Leases
from common.queue.sequence import SequenceNumbers
from common.queue.stale_tasks import StaleTasks
from common.queue.tasks import State, Task
from common.store.base import Tombstone, Verdict
from common.wiring import Dependencies, host_limit
from dev.redis_server import RedisServer
from support.images import noise
from support.tasks import accept_images, accept_upload, wait_for_ends
from support.waiting import wait_until
from workers.host_limiter import HostLimiter
from workers.retention import Retention
from workers.sweeper import Sweeper

WITHIN_S = 60
VISIBILITY_TIMEOUT_S = 300

DEADLY = b"\x89PNG\r\n\x1a\n deadly"
# Stands for a decoder that never returns from C code, for which no harmless picture is known.
DECODER_THAT_HANGS = f"""
import sys, time
from common.images.decode import decode
from workers import pipeline
from workers.__main__ import main

def decode_or_hang(data, limits):
    while data == {DEADLY!r}:
        time.sleep(1)
    return decode(data, limits)

pipeline.decode = decode_or_hang
sys.exit(main(sys.argv[1:]))
"""
# Stands for whatever ends Celery's own loop.
STEP_THAT_BREAKS = """
import sys
from workers.events import EventsOnceASecond
from workers.__main__ import main

def fail(*_):
    raise MemoryError("a step broke")

EventsOnceASecond.start = fail
sys.exit(main(sys.argv[1:]))
"""


def stored(parts: Dependencies) -> list[str]:
    return parts.store.filepaths(offset=0, limit=10_000).filepaths


def test_what_was_accepted_is_stored(parts: Dependencies, publisher: Publisher, start_worker: Any) -> None:
    tasks = accept_images(parts, 40)
    publisher.send(tasks, queue=SINGLE_QUEUE)

    start_worker()

    assert set(wait_for_ends(parts.ledger, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]
    assert parts.ledger.open_count() == 0


def test_uploads_and_messages_are_gone_when_their_work_is_done(
    parts: Dependencies, publisher: Publisher, start_worker: Any, real_redis: Redis
) -> None:
    tasks = accept_images(parts, 5)
    publisher.send(tasks, queue=SINGLE_QUEUE)
    worker = start_worker()
    wait_for_ends(parts.ledger, tasks)

    worker.terminate()
    worker.wait(WITHIN_S)

    assert list(real_redis.scan_iter(f"{UPLOAD}*")) == []
    assert real_redis.llen(SINGLE_QUEUE) == 0
    assert real_redis.hlen(UNACKED) == 0


def test_the_newest_request_wins_in_any_order_of_arrival(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    dice = random.Random(7)
    newest: dict[str, int | None] = {}
    tasks, deletions = [], []
    for number in range(120):
        filepath = f"{number % 12}"
        if dice.random() < 0.3:
            deletions.append(Tombstone(filepath=filepath, seq=SequenceNumbers(parts.redis).next(), added=0))
            newest[filepath] = None
        else:
            tasks.append(accept_upload(parts, filepath, noise(number)))
            newest[filepath] = tasks[-1].seq
    shuffled = dice.sample(tasks, len(tasks))
    start_worker()

    for task in shuffled:
        publisher.send([task], queue=SINGLE_QUEUE)
        if deletions:
            parts.store.put([deletions.pop(dice.randrange(len(deletions)))])
    parts.store.put(deletions)

    assert set(wait_for_ends(parts.ledger, tasks)) <= {State.SUCCEEDED, State.SUPERSEDED}
    records = parts.store.records(list(newest))
    assert {filepath: record.seq for filepath, record in records.items()} == {
        filepath: seq for filepath, seq in newest.items() if seq is not None
    }


def test_add_add_delete_leaves_nothing_whichever_comes_last(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    tasks = [accept_upload(parts, "same", noise(number)) for number in range(2)]
    tombstone = Tombstone(filepath="same", seq=SequenceNumbers(parts.redis).next(), added=0)
    assert parts.store.put([tombstone])[0].verdict is Verdict.STORED
    publisher.send(tasks[::-1], queue=SINGLE_QUEUE)

    start_worker()

    assert wait_for_ends(parts.ledger, tasks) == [State.SUPERSEDED, State.SUPERSEDED]
    assert stored(parts) == []


def test_a_repeated_message_changes_nothing(parts: Dependencies, publisher: Publisher, start_worker: Any) -> None:
    task = accept_upload(parts, "once", noise(1))
    publisher.send([task, task, task], queue=SINGLE_QUEUE)

    start_worker()

    assert wait_for_ends(parts.ledger, [task]) == [State.SUCCEEDED]
    assert stored(parts) == ["once"]


def test_sigterm_loses_nothing_and_repeats_nothing(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    tasks = accept_images(parts, 150)
    publisher.send(tasks, queue=SINGLE_QUEUE)
    first = start_worker()
    wait_until(parts.store.count, "some are stored", every_s=0.005)

    first.send_signal(signal.SIGTERM)
    status = first.wait(WITHIN_S)
    start_worker()

    assert status == 0
    assert set(wait_for_ends(parts.ledger, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]
    assert [found.attempts for task in tasks if (found := parts.ledger.task(task.id))] == [1] * len(tasks)


def test_a_batch_travels_many_to_a_message_and_each_picture_ends_by_itself(
    parts: Dependencies, publisher: Publisher, start_worker: Any, real_redis: Redis
) -> None:
    tasks = accept_images(parts, 2 * CHUNK + 1, queue=BATCH_QUEUE)
    broken = accept_upload(parts, "broken", b"\x89PNG\r\n\x1a\n no picture", queue=BATCH_QUEUE)
    publisher.send([*tasks, broken], queue=BATCH_QUEUE)
    messages = real_redis.llen(BATCH_QUEUE)

    start_worker()

    assert messages == 3
    assert wait_for_ends(parts.ledger, [*tasks, broken]) == [State.SUCCEEDED] * len(tasks) + [State.FAILED]
    assert stored(parts) == [task.filepath for task in tasks]


def test_sigterm_gives_the_rest_of_a_message_back_and_nothing_is_done_twice(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    tasks = accept_images(parts, 8 * CHUNK, queue=BATCH_QUEUE)
    publisher.send(tasks, queue=BATCH_QUEUE)
    first = start_worker()
    wait_until(parts.store.count, "some are stored", every_s=0.005)

    first.send_signal(signal.SIGTERM)
    status = first.wait(WITHIN_S)
    left = parts.ledger.open_count()
    start_worker()

    assert status == 0
    assert 0 < left < len(tasks)
    assert set(wait_for_ends(parts.ledger, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]
    assert [found.attempts for task in tasks if (found := parts.ledger.task(task.id))] == [1] * len(tasks)


def test_a_message_of_a_killed_worker_is_worked_again(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    short = {"MATCH_VISIBILITY_TIMEOUT_S": "4", "MATCH_STORE_HOLD_S": "1", "MATCH_FETCH_TIMEOUT_S": "1"}
    tasks = accept_images(parts, 4 * CHUNK, queue=BATCH_QUEUE)
    publisher.send(tasks, queue=BATCH_QUEUE)
    first = start_worker(**short, MATCH_DECODE_TIMEOUT_S="1")
    wait_until(parts.store.count, "some are stored", every_s=0.005)

    first.kill()
    first.wait()
    start_worker(**short, MATCH_DECODE_TIMEOUT_S="1")

    assert set(wait_for_ends(parts.ledger, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]


def test_a_worker_that_breaks_says_so_by_its_status(start_worker: Any) -> None:
    worker = start_worker(code=STEP_THAT_BREAKS)

    assert worker.wait(WITHIN_S) == 1


def test_what_a_killed_worker_held_is_swept_up(
    parts: Dependencies, publisher: Publisher, start_worker: Any, real_redis: Redis, redis_server: RedisServer
) -> None:
    tasks = accept_images(parts, 150)
    publisher.send(tasks, queue=SINGLE_QUEUE)
    first = start_worker()
    wait_until(parts.store.count, "some are stored", every_s=0.005)

    first.kill()
    first.wait()
    lose_messages(real_redis)
    sweep(parts, redis_server)
    start_worker()

    assert set(wait_for_ends(parts.ledger, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]


def test_a_task_whose_message_was_never_sent_is_swept_up(
    parts: Dependencies, start_worker: Any, real_redis: Redis, redis_server: RedisServer
) -> None:
    task = accept_upload(parts, "unsent", noise(1))
    start_worker()
    lose_messages(real_redis)

    assert sweep(parts, redis_server) == 1

    assert wait_for_ends(parts.ledger, [task]) == [State.SUCCEEDED]


def test_a_picture_that_kills_its_worker_is_given_up_and_its_neighbours_are_stored(
    parts: Dependencies, publisher: Publisher, start_worker: Any, real_redis: Redis, redis_server: RedisServer
) -> None:
    deadly = accept_upload(parts, "deadly", DEADLY)
    neighbours = accept_images(parts, 5)
    publisher.send([deadly], queue=SINGLE_QUEUE)
    for _ in range(3):
        worker = start_worker(code=DECODER_THAT_HANGS, MATCH_DECODE_TIMEOUT_S="1")
        assert worker.wait(WITHIN_S) == -signal.SIGALRM
        lose_messages(real_redis)
        sweep(parts, redis_server, only=deadly)
    publisher.send(neighbours, queue=SINGLE_QUEUE)
    start_worker(code=DECODER_THAT_HANGS, MATCH_DECODE_TIMEOUT_S="1")

    assert wait_for_ends(parts.ledger, [deadly, *neighbours]) == [State.FAILED] + [State.SUCCEEDED] * 5
    task = parts.ledger.task(deadly.id)
    assert task is not None
    assert task.code == "decoder_crashed"


def lose_messages(redis: Redis) -> None:
    """Lose what a worker that died may lose, and let enough time pass for it to be noticed."""
    redis.delete(SINGLE_QUEUE, UNACKED, UNACKED_INDEX)
    long_ago = int(redis.time()[0]) * 1000 - 2 * VISIBILITY_TIMEOUT_S * 1000 - 1000
    for task_id in redis.zrange(OPEN, 0, -1):
        redis.zadd(OPEN, {task_id: long_ago})


def sweep(parts: Dependencies, redis_server: RedisServer, *, only: Task | None = None) -> int:
    app = Celery(broker=redis_server.url, set_as_current=False)
    app.conf.update(QUEUE_SETTINGS)

    def send(task_ids: list[str], queue: str, at: int) -> None:
        for task_id in task_ids:
            if only is None or task_id == only.id:
                app.send_task(ADD_TASK, args=(task_id,), queue=queue, headers={ENQUEUED_AT_HEADER: at})

    found = Sweeper(
        parts.redis,
        StaleTasks(parts.redis),
        Leases(parts.redis),
        send,  # type: ignore[arg-type]
        host_limiter=HostLimiter(HostSlots(parts.redis, host_limit(Settings())), send),  # type: ignore[arg-type]
        retention=Retention(parts.redis, parts.ledger, Failures(parts.redis), parts.store, parts.uploads, 60),
        every_s=VISIBILITY_TIMEOUT_S / 10,
        lost_after_s=2 * VISIBILITY_TIMEOUT_S,
        batch=1000,
    ).sweep()
    app.close()
    return found
