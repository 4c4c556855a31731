"""Real workers on a real Redis: what was accepted is stored, in the right order, whoever dies."""

import io
import random
import signal
from time import monotonic, sleep
from typing import Any

import pytest
from celery import Celery
from PIL import Image
from redis import Redis

from api.work.publisher import Publisher
from common.queue.broker import QUEUE_SETTINGS
from common.queue.jobs import ADD_TASK, BATCH_QUEUE, CHUNK, SENT_HEADER, SINGLE_QUEUE, AddJob
from common.queue.ledger import OPEN
from common.queue.tasks import CLOSED_STATES, State, Task
from common.store.base import Tombstone, Verdict
from common.wiring import Parts
from dev.redis_server import RedisServer
from workers.hosts import Hosts
from workers.sweeper import Sweeper
from workers.tidying import Tidying

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


def picture(number: int) -> bytes:
    """Return a PNG unlike those of other numbers."""
    noise = random.Random(number).randbytes(12 * 12 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (12, 12), noise).resize((120, 120), Image.Resampling.BILINEAR).save(out, "PNG")
    return out.getvalue()


def accept(parts: Parts, filepath: str, data: bytes, *, queue: str = SINGLE_QUEUE) -> Task:
    upload = parts.uploads.put(data)
    parts.uploads.keep(upload)
    [task] = parts.ledger.accept([AddJob(filepath=filepath, upload=upload)], queue=queue)
    return task


def wait_for_ends(parts: Parts, tasks: list[Task]) -> list[State]:
    deadline = monotonic() + WITHIN_S
    while monotonic() < deadline:
        found = [parts.ledger.task(task.id) for task in tasks]
        states = [task.state for task in found if task is not None]
        if all(state in CLOSED_STATES for state in states):
            return states
        sleep(0.05)
    pytest.fail(f"not all tasks ended: {states}")


def stored(parts: Parts) -> list[str]:
    return parts.store.filepaths(offset=0, limit=10_000).filepaths


def test_what_was_accepted_is_stored(parts: Parts, publisher: Publisher, start_worker: Any) -> None:
    tasks = [accept(parts, f"{number:03}", picture(number)) for number in range(40)]
    publisher.send(tasks, queue=SINGLE_QUEUE)

    start_worker()

    assert set(wait_for_ends(parts, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]
    assert parts.ledger.open_count() == 0


def test_uploads_and_messages_are_gone_when_their_work_is_done(
    parts: Parts, publisher: Publisher, start_worker: Any, real_redis: Redis
) -> None:
    tasks = [accept(parts, f"{number}", picture(number)) for number in range(5)]
    publisher.send(tasks, queue=SINGLE_QUEUE)
    worker = start_worker()
    wait_for_ends(parts, tasks)

    worker.terminate()
    worker.wait(WITHIN_S)

    assert list(real_redis.scan_iter("match:upload:*")) == []
    assert real_redis.llen(SINGLE_QUEUE) == 0
    assert real_redis.hlen("unacked") == 0


def test_the_newest_request_wins_in_any_order_of_arrival(parts: Parts, publisher: Publisher, start_worker: Any) -> None:
    dice = random.Random(7)
    newest: dict[str, int | None] = {}
    tasks, deletions = [], []
    for number in range(120):
        filepath = f"{number % 12}"
        if dice.random() < 0.3:
            deletions.append(Tombstone(filepath=filepath, seq=parts.ledger.take_seq(), added=0))
            newest[filepath] = None
        else:
            tasks.append(accept(parts, filepath, picture(number)))
            newest[filepath] = tasks[-1].seq
    shuffled = dice.sample(tasks, len(tasks))
    start_worker()

    for task in shuffled:
        publisher.send([task], queue=SINGLE_QUEUE)
        if deletions:
            parts.store.put([deletions.pop(dice.randrange(len(deletions)))])
    parts.store.put(deletions)

    assert set(wait_for_ends(parts, tasks)) <= {State.SUCCEEDED, State.SUPERSEDED}
    records = parts.store.records(list(newest))
    assert {filepath: record.seq for filepath, record in records.items()} == {
        filepath: seq for filepath, seq in newest.items() if seq is not None
    }


def test_add_add_delete_leaves_nothing_whichever_comes_last(
    parts: Parts, publisher: Publisher, start_worker: Any
) -> None:
    tasks = [accept(parts, "same", picture(number)) for number in range(2)]
    tombstone = Tombstone(filepath="same", seq=parts.ledger.take_seq(), added=0)
    assert parts.store.put([tombstone])[0].verdict is Verdict.STORED
    publisher.send(tasks[::-1], queue=SINGLE_QUEUE)

    start_worker()

    assert wait_for_ends(parts, tasks) == [State.SUPERSEDED, State.SUPERSEDED]
    assert stored(parts) == []


def test_a_repeated_message_changes_nothing(parts: Parts, publisher: Publisher, start_worker: Any) -> None:
    task = accept(parts, "once", picture(1))
    publisher.send([task, task, task], queue=SINGLE_QUEUE)

    start_worker()

    assert wait_for_ends(parts, [task]) == [State.SUCCEEDED]
    assert stored(parts) == ["once"]


def test_sigterm_loses_nothing_and_repeats_nothing(parts: Parts, publisher: Publisher, start_worker: Any) -> None:
    tasks = [accept(parts, f"{number:03}", picture(number)) for number in range(150)]
    publisher.send(tasks, queue=SINGLE_QUEUE)
    first = start_worker()
    wait_for_some(parts)

    first.send_signal(signal.SIGTERM)
    status = first.wait(WITHIN_S)
    start_worker()

    assert status == 0
    assert set(wait_for_ends(parts, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]
    assert [found.attempts for task in tasks if (found := parts.ledger.task(task.id))] == [1] * len(tasks)


def test_a_batch_travels_many_to_a_message_and_each_picture_ends_by_itself(
    parts: Parts, publisher: Publisher, start_worker: Any, real_redis: Redis
) -> None:
    tasks = [accept(parts, f"{number:03}", picture(number), queue=BATCH_QUEUE) for number in range(2 * CHUNK + 1)]
    broken = accept(parts, "broken", b"\x89PNG\r\n\x1a\n no picture", queue=BATCH_QUEUE)
    publisher.send([*tasks, broken], queue=BATCH_QUEUE)
    messages = real_redis.llen(BATCH_QUEUE)

    start_worker()

    assert messages == 3
    assert wait_for_ends(parts, [*tasks, broken]) == [State.SUCCEEDED] * len(tasks) + [State.FAILED]
    assert stored(parts) == [task.filepath for task in tasks]


def test_sigterm_gives_the_rest_of_a_message_back_and_nothing_is_done_twice(
    parts: Parts, publisher: Publisher, start_worker: Any
) -> None:
    tasks = [accept(parts, f"{number:03}", picture(number), queue=BATCH_QUEUE) for number in range(8 * CHUNK)]
    publisher.send(tasks, queue=BATCH_QUEUE)
    first = start_worker()
    wait_for_some(parts)

    first.send_signal(signal.SIGTERM)
    status = first.wait(WITHIN_S)
    left = parts.ledger.open_count()
    start_worker()

    assert status == 0
    assert 0 < left < len(tasks)
    assert set(wait_for_ends(parts, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]
    assert [found.attempts for task in tasks if (found := parts.ledger.task(task.id))] == [1] * len(tasks)


def test_a_message_of_a_killed_worker_is_worked_again(parts: Parts, publisher: Publisher, start_worker: Any) -> None:
    short = {"MATCH_VISIBILITY_TIMEOUT_S": "4", "MATCH_STORE_HOLD_S": "1", "MATCH_FETCH_TIMEOUT_S": "1"}
    tasks = [accept(parts, f"{number:03}", picture(number), queue=BATCH_QUEUE) for number in range(4 * CHUNK)]
    publisher.send(tasks, queue=BATCH_QUEUE)
    first = start_worker(**short, MATCH_DECODE_TIMEOUT_S="1")
    wait_for_some(parts)

    first.kill()
    first.wait()
    start_worker(**short, MATCH_DECODE_TIMEOUT_S="1")

    assert set(wait_for_ends(parts, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]


def test_a_worker_that_breaks_says_so_by_its_status(start_worker: Any) -> None:
    worker = start_worker(code=STEP_THAT_BREAKS)

    assert worker.wait(WITHIN_S) == 1


def test_what_a_killed_worker_held_is_swept_up(
    parts: Parts, publisher: Publisher, start_worker: Any, real_redis: Redis, redis_server: RedisServer
) -> None:
    tasks = [accept(parts, f"{number:03}", picture(number)) for number in range(150)]
    publisher.send(tasks, queue=SINGLE_QUEUE)
    first = start_worker()
    wait_for_some(parts)

    first.kill()
    first.wait()
    lose_messages(real_redis)
    sweep(parts, redis_server)
    start_worker()

    assert set(wait_for_ends(parts, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]


def test_a_task_whose_message_was_never_sent_is_swept_up(
    parts: Parts, start_worker: Any, real_redis: Redis, redis_server: RedisServer
) -> None:
    task = accept(parts, "unsent", picture(1))
    start_worker()
    lose_messages(real_redis)

    assert sweep(parts, redis_server) == 1

    assert wait_for_ends(parts, [task]) == [State.SUCCEEDED]


def test_a_picture_that_kills_its_worker_is_given_up_and_its_neighbours_are_stored(
    parts: Parts, publisher: Publisher, start_worker: Any, real_redis: Redis, redis_server: RedisServer
) -> None:
    deadly = accept(parts, "deadly", DEADLY)
    neighbours = [accept(parts, f"{number}", picture(number)) for number in range(5)]
    publisher.send([deadly], queue=SINGLE_QUEUE)
    for _ in range(3):
        worker = start_worker(code=DECODER_THAT_HANGS, MATCH_DECODE_TIMEOUT_S="1")
        assert worker.wait(WITHIN_S) == -signal.SIGALRM
        lose_messages(real_redis)
        sweep(parts, redis_server, only=deadly)
    publisher.send(neighbours, queue=SINGLE_QUEUE)
    start_worker(code=DECODER_THAT_HANGS, MATCH_DECODE_TIMEOUT_S="1")

    assert wait_for_ends(parts, [deadly, *neighbours]) == [State.FAILED] + [State.SUCCEEDED] * 5
    task = parts.ledger.task(deadly.id)
    assert task is not None
    assert task.code == "image_ends_worker"


def wait_for_some(parts: Parts) -> None:
    deadline = monotonic() + WITHIN_S
    while not parts.store.count() and monotonic() < deadline:
        sleep(0.005)


def lose_messages(redis: Redis) -> None:
    """Lose what a worker that died may lose, and let enough time pass for it to be noticed."""
    redis.delete(SINGLE_QUEUE, "unacked", "unacked_index")
    long_ago = int(redis.time()[0]) * 1000 - 2 * VISIBILITY_TIMEOUT_S * 1000 - 1000
    for task_id in redis.zrange(OPEN, 0, -1):
        redis.zadd(OPEN, {task_id: long_ago})


def sweep(parts: Parts, redis_server: RedisServer, *, only: Task | None = None) -> int:
    app = Celery(broker=redis_server.url, set_as_current=False)
    app.conf.update(QUEUE_SETTINGS)

    def send(task_ids: list[str], queue: str, at: int) -> None:
        for task_id in task_ids:
            if only is None or task_id == only.id:
                app.send_task(ADD_TASK, args=(task_id,), queue=queue, headers={SENT_HEADER: at})

    found = Sweeper(
        parts.redis,
        parts.ledger,
        send,  # type: ignore[arg-type]
        hosts=Hosts(parts.ledger, send),  # type: ignore[arg-type]
        tidying=Tidying(parts.ledger, parts.store, parts.uploads, 60),
        every_s=VISIBILITY_TIMEOUT_S / 10,
        lost_after_s=2 * VISIBILITY_TIMEOUT_S,
        batch=1000,
    ).sweep()
    app.close()
    return found
