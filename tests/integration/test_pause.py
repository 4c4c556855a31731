"""The pause of the queue over HTTP, with real workers."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE
from common.queue.pause import Pause
from common.queue.publisher import Publisher
from common.queue.stats import read_stats
from common.queue.tasks import State
from common.wiring import Dependencies
from support.tasks import accept_images, wait_for_ends
from support.waiting import wait_until

WITHIN_S = 60


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], real_redis: Redis) -> FlaskClient:
    return make_client(real_redis)


def test_queue_is_paused_and_resumed_over_http(client: FlaskClient, real_redis: Redis) -> None:
    states = [
        client.post("/queue/pause").json["result"],
        client.get("/queue").json["result"],
        client.get("/readyz").json,
        client.post("/queue/resume").json["result"],
        client.get("/queue").json["result"],
    ]

    idle = {"waiting": 0, "running": 0, "failed": 0, "oldest_age_s": 0, "rate_per_s": 0, "workers": 0}
    paused, shown, ready, resumed, after = states
    assert paused == shown == [idle | {"paused": True}]
    assert (ready["status"], ready["checks"]["queue"]) == ("warn", {"paused": True})
    assert resumed == after == [idle | {"paused": False}]
    assert not Pause(real_redis).is_set()


def test_pause_survives_restarts_and_loses_nothing(
    parts: Dependencies, publisher: Publisher, start_worker: Any, real_redis: Redis
) -> None:
    pause = Pause(real_redis)
    tasks = accept_images(parts, 400, queue=BATCH_QUEUE)
    publisher.send(tasks, queue=BATCH_QUEUE)
    worker = start_worker(MATCH_WORKER_THREADS="2")
    wait_until(lambda: parts.store.count() > 0, "the batch is worked on")
    pause.set()
    wait_until(lambda: read_stats(real_redis).in_flight == 0, "no task runs")
    worker.terminate()
    worker.wait(WITHIN_S)

    singles = accept_images(parts, 3)
    for single in singles:
        publisher.send([single], queue=SINGLE_QUEUE)
    second = start_worker()
    wait_until(lambda: read_stats(real_redis).workers > 0, "the next worker is alive")
    wait_until(lambda: real_redis.llen(SINGLE_QUEUE) == 3, "no message is taken")
    while_paused = read_stats(real_redis)
    stored = parts.store.count()
    pause.clear()

    assert while_paused.is_paused
    assert while_paused.open == 403 - stored > 3
    assert set(wait_for_ends(parts.ledger, [*tasks, *singles])) == {State.SUCCEEDED}
    assert second.poll() is None
