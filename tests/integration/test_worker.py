"""Real workers on a real Redis: accepted tasks are stored in the right order, even when workers die."""

import hashlib
import random
import signal
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from api.use_cases.delete_selected import DeleteSelected
from common.queue.batches import Batches, BatchState
from common.queue.broker import QUEUE_SETTINGS
from common.queue.items import AddItem
from common.queue.jobs import (
    ADD_TASK,
    BATCH_QUEUE,
    CHUNK,
    ENQUEUED_AT_HEADER,
    NO_REQUEST,
    SINGLE_CHUNK,
    SINGLE_QUEUE,
)
from common.queue.keys import OPEN, UNACKED, UNACKED_INDEX, UPLOAD
from common.queue.publisher import Publisher
from common.queue.sequence import SequenceNumbers
from common.queue.stats import read_stats
from common.queue.tasks import State
from common.store.base import Record, Selection, Tombstone, Verdict
from common.wiring import Dependencies
from dev.redis_server import RedisServer
from support import poison
from support.http_servers import serving
from support.image_server import ImageServer, image
from support.images import noise
from support.records import record
from support.sweeping import make_sweeper
from support.tasks import accept_images, accept_upload, enqueue, task_of, wait_for_ends
from support.waiting import wait_until

WITHIN_S = 60
VISIBILITY_TIMEOUT_S = 300
SIGNATURE = "s1gnature0fAUrl"

WORKER_WITH_POISON = """
import sys
sys.path.insert(0, "tests")
from support import poison
sys.exit(poison.work(sys.argv[1:]))
"""
# In place of an error that ends Celery's own loop.
STEP_THAT_BREAKS = """
import sys
from workers.events import EventsOnceASecond
from workers.__main__ import main

def fail(*_):
    raise MemoryError("a step broke")

EventsOnceASecond.start = fail
sys.exit(main(sys.argv[1:]))
"""


def source(record: Record) -> tuple[bytes | None, str | None]:
    return record.sha256, record.url


def stored(parts: Dependencies) -> list[str]:
    return parts.store.filepaths(offset=0, limit=10_000).filepaths


def test_accepted_tasks_are_stored(parts: Dependencies, publisher: Publisher, start_worker: Any) -> None:
    tasks = accept_images(parts, 40)
    publisher.send(tasks, queue=SINGLE_QUEUE)

    start_worker()

    assert set(wait_for_ends(parts.ledger, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]
    assert read_stats(parts.redis).open == 0


def test_finished_tasks_leave_no_upload_and_no_message(
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


def test_records_have_the_source_of_their_images(
    parts: Dependencies, publisher: Publisher, start_worker: Any, tmp_path: Path
) -> None:
    with serving(ImageServer()) as server:
        fetched = AddItem(filepath="fetched", url=f"{server.url}/7?size=2&X-Amz-Signature={SIGNATURE}#top")
        tasks = [*enqueue(parts.ledger, [fetched]), accept_upload(parts, "uploaded", image(8))]
        publisher.send(tasks, queue=SINGLE_QUEUE)
        start_worker(MATCH_FETCH_ALLOW=server.address, MATCH_LOG_LEVEL="debug")
        states = wait_for_ends(parts.ledger, tasks)

    records = parts.store.records(["fetched", "uploaded"])
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert set(states) == {State.SUCCEEDED}
    assert source(records["fetched"]) == (hashlib.sha256(image(7)).digest(), f"{server.url}/7?size=2")
    assert source(records["uploaded"]) == (hashlib.sha256(image(8)).digest(), None)
    assert SIGNATURE.encode() not in kept


def test_setting_keeps_source_urls_out_of_the_store(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    with serving(ImageServer()) as server:
        tasks = enqueue(parts.ledger, [AddItem(filepath="fetched", url=f"{server.url}/7")])
        publisher.send(tasks, queue=SINGLE_QUEUE)
        start_worker(MATCH_FETCH_ALLOW=server.address, MATCH_KEEP_SOURCE_URL="false")
        wait_for_ends(parts.ledger, tasks)

    assert source(parts.store.records(["fetched"])["fetched"]) == (hashlib.sha256(image(7)).digest(), None)


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


def test_add_add_delete_leaves_nothing_in_any_order(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    tasks = [accept_upload(parts, "same", noise(number)) for number in range(2)]
    tombstone = Tombstone(filepath="same", seq=SequenceNumbers(parts.redis).next(), added=0)
    assert parts.store.put([tombstone])[0].verdict is Verdict.STORED
    publisher.send(tasks[::-1], queue=SINGLE_QUEUE)

    start_worker()

    assert wait_for_ends(parts.ledger, tasks) == [State.SUPERSEDED, State.SUPERSEDED]
    assert stored(parts) == []


def test_folder_is_deleted_with_earlier_adds_only(parts: Dependencies, publisher: Publisher, start_worker: Any) -> None:
    deletions = DeleteSelected(parts.store, parts.ledger, Batches(parts.redis), publisher)
    parts.store.put([record(f"01{number}", number) for number in range(1, 6)])
    before = accept_images(parts, 30)
    task = deletions.delete(Selection(filepath_prefix="01"), NO_REQUEST, owner="", expected=5)
    after = accept_upload(parts, "011", noise(99))
    publisher.send([after, *before], queue=SINGLE_QUEUE)
    # The message of the deletion arrives twice.
    publisher.send([task], queue=SINGLE_QUEUE)

    start_worker()
    start_worker()

    states = wait_for_ends(parts.ledger, [task, after, *before])
    assert states[:2] == [State.SUCCEEDED, State.SUCCEEDED]
    kept = [add.filepath for add in before if not add.filepath.startswith("01")]
    assert sorted(stored(parts)) == sorted([*kept, "011"])
    batch = Batches(parts.redis).get(task.batch or "")
    assert batch is not None
    assert (batch.state, batch.pending, batch.failed) == (BatchState.ENDED, 0, 0)


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
    assert [task_of(parts.ledger, task.id).attempts for task in tasks] == [1] * len(tasks)


def test_batch_is_sent_in_chunks_with_an_outcome_each(
    parts: Dependencies, publisher: Publisher, start_worker: Any, real_redis: Redis
) -> None:
    tasks = accept_images(parts, 2 * CHUNK + 1, queue=BATCH_QUEUE)
    broken = accept_upload(parts, "broken", b"\x89PNG\r\n\x1a\n not an image", queue=BATCH_QUEUE)
    publisher.send([*tasks, broken], queue=BATCH_QUEUE)
    messages = real_redis.llen(BATCH_QUEUE)

    start_worker()

    assert messages == 3
    assert wait_for_ends(parts.ledger, [*tasks, broken]) == [State.SUCCEEDED] * len(tasks) + [State.FAILED]
    assert stored(parts) == [task.filepath for task in tasks]


def test_adds_that_arrive_during_a_send_share_a_message(
    parts: Dependencies, publisher: Publisher, start_worker: Any, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = accept_images(parts, 1 + SINGLE_CHUNK)
    begun, go, send_all = Event(), Event(), publisher._send_all

    def slow_send_all(left: deque[dict[str, Any]]) -> None:
        begun.set()
        assert go.wait(WITHIN_S)
        send_all(left)

    monkeypatch.setattr(publisher, "_send_all", slow_send_all)
    with ThreadPoolExecutor(len(tasks)) as pool:
        sent = [pool.submit(publisher.send, tasks[:1], queue=SINGLE_QUEUE)]
        assert begun.wait(WITHIN_S)
        sent += [pool.submit(publisher.send, [task], queue=SINGLE_QUEUE) for task in tasks[1:]]
        wait_until(lambda: publisher._send_singles._next is None, "the next message is full")
        go.set()
        for each in sent:
            each.result(WITHIN_S)
    messages = real_redis.llen(SINGLE_QUEUE)

    start_worker()

    assert messages == 2
    assert wait_for_ends(parts.ledger, tasks) == [State.SUCCEEDED] * len(tasks)
    assert stored(parts) == [task.filepath for task in tasks]


def test_sigterm_returns_the_rest_of_a_chunk(parts: Dependencies, publisher: Publisher, start_worker: Any) -> None:
    tasks = accept_images(parts, 8 * CHUNK, queue=BATCH_QUEUE)
    publisher.send(tasks, queue=BATCH_QUEUE)
    first = start_worker()
    wait_until(parts.store.count, "some are stored", every_s=0.005)

    first.send_signal(signal.SIGTERM)
    status = first.wait(WITHIN_S)
    left = read_stats(parts.redis).open
    start_worker()

    assert status == 0
    assert 0 < left < len(tasks)
    assert set(wait_for_ends(parts.ledger, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]
    assert [task_of(parts.ledger, task.id).attempts for task in tasks] == [1] * len(tasks)


def test_message_of_a_killed_worker_is_delivered_again(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    short = {"MATCH_VISIBILITY_TIMEOUT_S": "5", "MATCH_STORE_HOLD_S": "1", "MATCH_FETCH_TIMEOUT_S": "1"}
    tasks = accept_images(parts, 4 * CHUNK, queue=BATCH_QUEUE)
    publisher.send(tasks, queue=BATCH_QUEUE)
    first = start_worker(**short, MATCH_DECODE_TIMEOUT_S="1")
    wait_until(parts.store.count, "some are stored", every_s=0.005)

    first.kill()
    first.wait()
    start_worker(**short, MATCH_DECODE_TIMEOUT_S="1")

    assert set(wait_for_ends(parts.ledger, tasks)) == {State.SUCCEEDED}
    assert stored(parts) == [task.filepath for task in tasks]


def test_broken_worker_exits_with_status_1(start_worker: Any) -> None:
    worker = start_worker(code=STEP_THAT_BREAKS)

    assert worker.wait(WITHIN_S) == 1


def test_tasks_of_a_killed_worker_are_swept(
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


def test_task_without_a_message_is_swept(
    parts: Dependencies, start_worker: Any, real_redis: Redis, redis_server: RedisServer
) -> None:
    task = accept_upload(parts, "unsent", noise(1))
    start_worker()
    lose_messages(real_redis)

    assert sweep(parts, redis_server) == 1

    assert wait_for_ends(parts.ledger, [task]) == [State.SUCCEEDED]


def test_poison_images_fail_at_once_and_others_are_stored(
    parts: Dependencies, publisher: Publisher, start_worker: Any
) -> None:
    endings = [poison.CRASHES, poison.HANGS, poison.BUG]
    poisonous = [accept_upload(parts, f"poison {n}", noise(n) + ending) for n, ending in enumerate(endings)]
    others = accept_images(parts, 5)
    publisher.send([*poisonous, *others], queue=SINGLE_QUEUE)

    worker = start_worker(code=WORKER_WITH_POISON, MATCH_DECODE_TIMEOUT_S="1")

    assert wait_for_ends(parts.ledger, [*poisonous, *others]) == [State.FAILED] * 3 + [State.SUCCEEDED] * 5
    ended = [task_of(parts.ledger, task.id) for task in poisonous]
    assert [task.code for task in ended] == ["decoder_crashed", "decode_timeout", "internal_error"]
    assert worker.poll() is None


def lose_messages(redis: Redis) -> None:
    """Delete the messages that a dead worker may lose, and make the open tasks old enough to be swept."""
    redis.delete(SINGLE_QUEUE, UNACKED, UNACKED_INDEX)
    long_ago = int(redis.time()[0]) * 1000 - 2 * VISIBILITY_TIMEOUT_S * 1000 - 1000
    for task_id in redis.zrange(OPEN, 0, -1):
        redis.zadd(OPEN, {task_id: long_ago})


def sweep(parts: Dependencies, redis_server: RedisServer) -> int:
    app = Celery(broker=redis_server.url, set_as_current=False)
    app.conf.update(QUEUE_SETTINGS)

    def send(task_ids: Sequence[str], queue: str, at: int) -> None:
        for task_id in task_ids:
            app.send_task(ADD_TASK, args=(task_id,), queue=queue, headers={ENQUEUED_AT_HEADER: at})

    swept = make_sweeper(parts, send, lost_after_s=2 * VISIBILITY_TIMEOUT_S).sweep()
    app.close()
    return swept
