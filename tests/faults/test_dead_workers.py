"""The time until others restart the work of a dead worker, with the default time-outs."""

import os
import signal
from time import monotonic

import pytest

from common.queue.keys import RUNNING
from support.adds import Accepted, Item, wait_for_ends
from support.deployment import Deployment, size
from support.waiting import wait_until

THREADS = 16
# The time-outs of this file are those of production: without heartbeats, work would be restarted after 300 s.
RESTARTED_WITHIN_S = 150.0


@pytest.fixture
def timeouts() -> dict[str, str]:
    return {}


def test_work_of_a_dead_worker_is_restarted_soon(deployment: Deployment) -> None:
    kills = size(1, 20)
    client = deployment.client()
    worker = deployment.service.start_worker()
    accepted: list[Accepted] = []
    slowest_s = 0.0
    for nth in range(kills):
        items = [
            Item(f"{nth}-{n}", nth * 2 * THREADS + n, f"{deployment.image_server.url}/{nth * 2 * THREADS + n}?late=1")
            for n in range(2 * THREADS)
        ]
        accepted += client.add_all(items)
        wait_until(lambda: deployment.dependencies.redis.zcard(RUNNING) == THREADS, "every thread runs a task")
        begun = {task_id.decode() for task_id in deployment.dependencies.redis.zrange(RUNNING, 0, -1)}
        os.kill(worker.pid, signal.SIGKILL)
        killed = monotonic()
        wait_until(
            lambda begun=begun: not any(is_begun_once(deployment, task_id) for task_id in begun),
            "all work is restarted",
            within_s=RESTARTED_WITHIN_S,
        )
        slowest_s = max(slowest_s, monotonic() - killed)
        wait_for_ends(deployment.dependencies, accepted, within_s=RESTARTED_WITHIN_S)

    scenario = f"worker killed {kills} times, restarted tasks begin at the latest after {slowest_s:.1f} s"
    outcomes = deployment.finish(scenario, accepted)

    assert (outcomes.stored, outcomes.lost) == (len(accepted), 0), outcomes


def is_begun_once(deployment: Deployment, task_id: str) -> bool:
    task = deployment.dependencies.ledger.task(task_id)
    return task is not None and task.attempts == 1
