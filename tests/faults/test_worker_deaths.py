"""Workers that are killed or stopped: their tasks are stored anyway."""

import os
import signal
from time import monotonic

import pytest

from support.deployment import Deployment, size
from support.proxy import Proxy
from support.service import wait_for_workers
from support.waiting import wait_until

# The grace period of workers in Kubernetes and compose.
GRACE_S = 60
# The defaults, for tests that kill nothing: on a busy machine, a time-out of seconds would repeat or fail tasks.
DEFAULT_TIMEOUTS = {"MATCH_VISIBILITY_TIMEOUT_S": "300", "MATCH_DECODE_TIMEOUT_S": "30"}


@pytest.mark.parametrize(
    ("kills", "count", "batch", "settings", "scenario"),
    [
        (size(3, 20), size(300, 2000), False, {}, "worker killed {} times"),
        (size(2, 20), size(400, 4000), True, {}, "worker killed {} times during batches"),
        (
            size(2, 10),
            size(100, 1000),
            False,
            {"MATCH_FETCH_PER_HOST": "3"},
            "worker killed {} times with every slot of a host",
        ),
    ],
    ids=["single adds", "batches", "host slots"],
)
def test_killed_workers_lose_nothing(
    deployment: Deployment, kills: int, count: int, settings: dict[str, str], scenario: str, *, batch: bool
) -> None:
    client = deployment.client(**settings)
    items = deployment.items(count)
    accepted = client.add_batch(items) if batch else client.add_all(items)
    worker = deployment.service.start_worker(**settings)
    deployment.kill_while_storing(worker, kills=kills, of=count)

    outcomes = deployment.finish(scenario.format(kills), accepted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    # Tasks began again after each death, and each counts once.
    counted = [(one["state"], one["total"], one["succeeded"]) for one in client.batches()]
    assert counted == [("ended", count, count)] * batch


def test_a_message_lost_with_its_worker_is_resent(deployment: Deployment) -> None:
    kills = size(2, 10)
    accepted = deployment.client().add_all(deployment.uploads(kills + 20))
    with Proxy(deployment.redis.port) as proxy:
        worker = deployment.service.start_worker(REDIS_URL=proxy.url("redis"))
        killed: set[int] = set()

        def kill_before_unacked_index(data: bytes) -> bool:
            # The message has left the queue, and no index of unacknowledged messages has it yet.
            if b"ZADD" not in data or b"unacked_index" not in data or len(killed) == kills:
                return True
            if worker.pid not in killed:
                killed.add(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
            return False

        proxy.watch = kill_before_unacked_index
        wait_until(lambda: len(killed) == kills, f"the worker is killed {kills} times")

        outcomes = deployment.finish(f"worker killed {kills} times just after it received a message", accepted)

    assert (outcomes.accepted, outcomes.stored) == (kills + 20, kills + 20), outcomes


def test_sigterm_during_work_repeats_nothing(deployment: Deployment) -> None:
    stops, count = size(2, 10), size(200, 2000)
    accepted = deployment.client().add_all(deployment.uploads(count))
    statuses: list[int] = []
    for nth in range(1, stops + 1):
        worker = deployment.service.start_worker(**DEFAULT_TIMEOUTS)
        wait_for_workers(deployment.redis.url, 1)
        deployment.wait_for_stored(count * nth // (stops + 2))
        statuses.append(deployment.service.stop(worker, within_s=GRACE_S))
    deployment.service.start_worker(**DEFAULT_TIMEOUTS)

    outcomes = deployment.finish(f"worker stopped by SIGTERM {stops} times", accepted)

    assert statuses == [0] * stops
    assert (outcomes.stored, outcomes.repeated) == (count, 0), outcomes


def test_sigterm_ends_a_worker_whose_redis_is_silent(deployment: Deployment) -> None:
    count, grace_s = size(100, 1000), size(8, 60)
    accepted = deployment.client().add_all(deployment.uploads(count))
    with Proxy(deployment.redis.port) as proxy:
        settings = {"REDIS_URL": proxy.url("redis"), "MATCH_STOP_WITHIN_S": f"{grace_s - 4}"}
        worker = deployment.service.start_worker(**settings)
        deployment.wait_for_stored(1)
        proxy.stall()

        began = monotonic()
        status = deployment.service.stop(worker, within_s=grace_s)
        took_s = monotonic() - began
    deployment.service.start_worker()

    outcomes = deployment.finish(f"SIGTERM while Redis is silent: worker exits in {took_s:.0f} s", accepted)

    assert status != 0
    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
