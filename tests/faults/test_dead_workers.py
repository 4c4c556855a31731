"""The time until others restart the work of a dead worker, with the default time-outs, and of one that seems dead."""

import os
import re
import signal
from time import monotonic, sleep

import pytest

from common.queue.keys import RUNNING
from common.queue.tasks import State
from support.adds import Accepted, Item, wait_for_ends
from support.deployment import Deployment, size
from support.proxy import Proxy
from support.service import wait_for_workers
from support.waiting import wait_until

THREADS = 16
# The time-outs of this file are those of production: without heartbeats, work would be restarted after 300 s.
RESTARTED_WITHIN_S = 150.0


@pytest.fixture
def timeouts() -> dict[str, str]:
    return {}


def test_work_of_a_dead_worker_is_restarted_soon(deployment: Deployment) -> None:
    kills, count = size(1, 20), 4 * THREADS
    client = deployment.client()
    worker, _ = deployment.service.start_worker(), deployment.service.start_worker()
    accepted: list[Accepted] = []
    slowest_s = 0.0
    for nth in range(kills):
        numbers = range(nth * count, (nth + 1) * count)
        accepted += client.add_all([Item(f"{n}", n, f"{deployment.image_server.url}/{n}?late=1") for n in numbers])
        wait_until(lambda: deployment.dependencies.redis.zcard(RUNNING) == 2 * THREADS, "every thread runs a task")
        begun = deployment.dependencies.redis.zrange(RUNNING, 0, -1)
        os.kill(worker.pid, signal.SIGKILL)
        killed = monotonic()
        wait_until(
            lambda begun=begun: not any(is_running_once(deployment, task_id.decode()) for task_id in begun),
            "all work is restarted",
            within_s=RESTARTED_WITHIN_S,
        )
        slowest_s = max(slowest_s, monotonic() - killed)
        wait_for_ends(deployment.dependencies, accepted, within_s=RESTARTED_WITHIN_S)

    scenario = f"one of two workers killed {kills} times, its tasks begin again within {slowest_s:.1f} s"
    outcomes = deployment.finish(scenario, accepted)

    assert (outcomes.stored, outcomes.lost) == (len(accepted), 0), outcomes


def test_silent_redis_repeats_no_running_task(deployment: Deployment) -> None:
    silent_s, count = size(12, 60), 2 * THREADS
    # The downloads end when a worker that counts as dead would have lost its tasks to another.
    late_s = silent_s + 15
    url = deployment.image_server.url
    with Proxy(deployment.redis.port) as proxy:
        settings = {"REDIS_URL": proxy.url("redis"), "MATCH_FETCH_TIMEOUT_S": "100"}
        workers = [deployment.service.start_worker(**settings) for _ in range(2)]
        wait_for_workers(deployment.redis.url, 2)
        client = deployment.client()
        accepted = client.add_all([Item(f"{n}", n, f"{url}/{n}?late={late_s}") for n in range(count)])
        wait_until(lambda: deployment.dependencies.redis.zcard(RUNNING) == count, "every thread runs a task")
        proxy.stall()
        sleep(silent_s)
        proxy.resume()

        outcomes = deployment.finish(f"Redis silent for {silent_s} s while two workers run tasks", accepted)

    assert (outcomes.stored, outcomes.repeated) == (count, 0), outcomes
    assert not any(re.search(r"\d+ dead workers:", deployment.service.log(worker)) for worker in workers)


def is_running_once(deployment: Deployment, task_id: str) -> bool:
    task = deployment.dependencies.ledger.task(task_id)
    return task is not None and task.state is State.RUNNING and task.attempts == 1
