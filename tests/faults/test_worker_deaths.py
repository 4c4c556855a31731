"""Workers that die or are stopped: what they held is stored all the same."""

import os
import signal
from time import monotonic

from support.proxy import Proxy
from support.stage import Stage, size
from support.stores import wait_for_stored
from support.waiting import wait_until

# What Kubernetes and compose give a worker before they kill it.
GRACE_S = 60


def test_a_worker_killed_again_and_again_loses_nothing(stage: Stage) -> None:
    kills, count = size(3, 20), size(300, 2000)
    accepted = stage.client().add_all(stage.items(count))
    worker = stage.service.start_worker()
    stage.kill_while_storing(worker, kills=kills, of=count)

    found = stage.finish(f"worker killed {kills} times", accepted)

    assert (found.accepted, found.stored) == (count, count)


def test_a_worker_killed_during_batches_loses_nothing(stage: Stage) -> None:
    kills, count = size(2, 20), size(400, 4000)
    accepted = stage.client().add_batch(stage.items(count))
    worker = stage.service.start_worker()
    stage.kill_while_storing(worker, kills=kills, of=count)

    found = stage.finish(f"worker killed {kills} times during batches", accepted)

    assert (found.accepted, found.stored) == (count, count)


def test_places_at_a_host_that_died_with_their_worker_are_given_to_others(stage: Stage) -> None:
    kills, count = size(2, 10), size(100, 1000)
    settings = {"MATCH_FETCH_PER_HOST": "3"}
    accepted = stage.client(**settings).add_all(stage.items(count))
    worker = stage.service.start_worker(**settings)
    stage.kill_while_storing(worker, kills=kills, of=count)

    found = stage.finish(f"worker killed {kills} times with every place at a host", accepted)

    assert (found.accepted, found.stored) == (count, count)


def test_a_message_that_dies_with_its_worker_is_sent_again(stage: Stage) -> None:
    kills = size(2, 10)
    accepted = stage.client().add_all(stage.uploads(kills + 20))
    with Proxy(stage.redis.port) as proxy:
        worker = stage.service.start_worker(REDIS_URL=proxy.url("redis"))
        killed: set[int] = set()

        def kill_before_it_notes_what_it_took(data: bytes) -> bool:
            # The queue has given a message away, and nobody knows yet to whom.
            if b"ZADD" not in data or b"unacked_index" not in data or len(killed) == kills:
                return True
            if worker.pid not in killed:
                killed.add(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
            return False

        proxy.watch = kill_before_it_notes_what_it_took
        wait_until(lambda: len(killed) == kills, "the worker is killed often enough")

        found = stage.finish(f"worker killed {kills} times with a message just taken", accepted)

    assert (found.accepted, found.stored) == (kills + 20, kills + 20)


def test_sigterm_during_work_repeats_nothing(stage: Stage) -> None:
    stops, count = size(2, 10), size(200, 2000)
    accepted = stage.client().add_all(stage.uploads(count))
    ended: list[int] = []
    for nth in range(1, stops + 1):
        worker = stage.service.start_worker()
        stage.service.let_go(worker)
        wait_for_stored(stage.parts.store, count * nth // (stops + 2))
        worker.ask_to_stop()
        ended.append(worker._process.wait(GRACE_S))
    stage.service.start_worker()

    found = stage.finish(f"worker stopped by SIGTERM {stops} times", accepted)

    assert ended == [0] * stops
    assert (found.stored, found.repeated) == (count, 0)


def test_sigterm_while_redis_is_silent_ends_within_the_grace_period(stage: Stage) -> None:
    count, grace_s = size(100, 1000), size(8, 60)
    accepted = stage.client().add_all(stage.uploads(count))
    with Proxy(stage.redis.port) as proxy:
        settings = {"REDIS_URL": proxy.url("redis"), "MATCH_STOP_WITHIN_S": f"{grace_s - 4}"}
        worker = stage.service.start_worker(**settings)
        stage.service.let_go(worker)
        wait_for_stored(stage.parts.store, 1)
        proxy.stall()

        worker.ask_to_stop()
        began = monotonic()
        status = worker._process.wait(grace_s)
        took_s = monotonic() - began
    stage.service.start_worker()

    found = stage.finish(f"SIGTERM while Redis is silent: ends in {took_s:.0f} s", accepted)

    assert status != 0
    assert (found.accepted, found.stored) == (count, count)
