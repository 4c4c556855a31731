"""An API that dies: what it answered is stored, and what it accepted without an answer as well."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic

import requests

from common.queue.keys import OPEN
from dev.asking import answers
from support.accounts import Accepted
from support.proxy import Proxy
from support.stage import Stage, size
from support.stores import wait_for_stored
from support.waiting import wait_until


def test_what_an_api_accepted_and_did_not_send_any_more_is_sent_by_a_worker(stage: Stage) -> None:
    deaths = size(2, 10)
    items = stage.uploads(deaths)
    with Proxy(stage.redis.port) as proxy:
        client = stage.client(REDIS_URL=proxy.url("redis"))
        [api] = stage.service.running("api")

        def kill_before_it_sends(data: bytes) -> bool:
            if b"LPUSH" in data:
                os.killpg(api.pid, signal.SIGKILL)
                return False
            return True

        proxy.watch = kill_before_it_sends
        for item in items:
            with suppress(requests.ConnectionError):
                client.add(item)
            wait_until(lambda: answers(f"{client.url}/livez", within_s=5), "the API is back")
    ids = [task_id.decode() for task_id in stage.parts.redis.zrange(OPEN, 0, -1)]
    by_path = {task.filepath: task.id for task_id in ids if (task := stage.parts.ledger.task(task_id))}
    accepted = [Accepted(item, by_path[item.filepath]) for item in items]
    stage.service.start_worker()

    found = stage.finish(f"API killed {deaths} times between accepting and sending", accepted)

    assert (found.accepted, found.stored) == (deaths, deaths)


def test_what_an_api_answered_before_it_was_killed_is_stored(stage: Stage) -> None:
    kills, count = size(2, 10), size(200, 2000)
    client = stage.client()
    [api] = stage.service.running("api")
    stage.service.start_worker()
    with ThreadPoolExecutor() as pool:
        adding = pool.submit(client.add_all, stage.uploads(count), patience_s=60)
        for nth in range(1, kills + 1):
            wait_for_stored(stage.parts.store, count * nth // (kills + 2))
            os.killpg(api.pid, signal.SIGKILL)
            wait_until(lambda: answers(f"{client.url}/livez", within_s=5), "the API is back")
        back = monotonic()
        accepted = adding.result()

    found = stage.finish(f"API killed {kills} times during adds", accepted, since=back)

    assert (found.accepted, found.stored) == (count, count)
