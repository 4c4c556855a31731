"""Kills of the API: each add that it accepted is stored, with or without a response."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic

import requests

from common.queue.keys import OPEN
from dev.asking import answers
from support.adds import Accepted, Client
from support.deployment import Deployment, size
from support.proxy import Proxy
from support.waiting import wait_until


def test_workers_publish_tasks_that_a_killed_api_accepted(deployment: Deployment) -> None:
    kills = size(2, 10)
    items = deployment.uploads(kills)
    with Proxy(deployment.redis.port) as proxy:
        client = deployment.client(REDIS_URL=proxy.url("redis"))
        [api] = deployment.service.running("api")

        def kill_before_publish(data: bytes) -> bool:
            if b"LPUSH" in data:
                os.killpg(api.pid, signal.SIGKILL)
                return False
            return True

        proxy.watch = kill_before_publish
        for item in items:
            with suppress(requests.ConnectionError):
                client.add(item)
            wait_for_restart(client)
    ids = [task_id.decode() for task_id in deployment.dependencies.redis.zrange(OPEN, 0, -1)]
    by_path = {task.filepath: task.id for task_id in ids if (task := deployment.dependencies.ledger.task(task_id))}
    accepted = [Accepted(item, by_path[item.filepath]) for item in items]
    deployment.service.start_worker()

    outcomes = deployment.finish(f"API killed {kills} times between accept and publish", accepted)

    assert (outcomes.accepted, outcomes.stored) == (kills, kills), outcomes


def test_adds_answered_before_an_api_kill_are_stored(deployment: Deployment) -> None:
    kills, count = size(2, 10), size(200, 2000)
    client = deployment.client()
    [api] = deployment.service.running("api")
    deployment.service.start_worker()
    with ThreadPoolExecutor() as pool:
        adds = pool.submit(client.add_all, deployment.uploads(count), patience_s=60)
        for nth in range(1, kills + 1):
            deployment.wait_for_stored(count * nth // (kills + 2))
            os.killpg(api.pid, signal.SIGKILL)
            wait_for_restart(client)
        restarted = monotonic()
        accepted = adds.result()

    outcomes = deployment.finish(f"API killed {kills} times during adds", accepted, since=restarted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes


def wait_for_restart(client: Client) -> None:
    wait_until(lambda: answers(f"{client.url}/livez", within_s=5), "the API answers again")
