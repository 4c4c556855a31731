"""Redis that is killed, down, unreachable or without disk space: adds accepted before are stored afterwards."""

import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
import requests

from common.queue.stats import read_stats
from dev.redis_server import RedisServer
from support.adds import Item, wait_for_ends
from support.deployment import Deployment, size
from support.proxy import Proxy
from support.waiting import wait_until


@pytest.mark.parametrize("redis", ["everysec", "always"], indirect=True)
def test_redis_crashes_lose_nothing(deployment: Deployment) -> None:
    kills, count = size(2, 10), size(200, 2000)
    fsync = deployment.dependencies.redis.config_get("appendfsync")["appendfsync"]
    client = deployment.client()
    deployment.service.start_worker()
    with ThreadPoolExecutor() as pool:
        adds = pool.submit(client.add_all, deployment.items(count), patience_s=60)
        for nth in range(1, kills + 1):
            deployment.wait_for_stored(count * nth // (kills + 2))
            deployment.redis.kill()
            deployment.redis.start()
        restarted = monotonic()
        accepted = adds.result()

    scenario = f"Redis (appendfsync {fsync}) killed {kills} times during adds"
    outcomes = deployment.finish(scenario, accepted, since=restarted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes


def test_adds_answer_503_until_redis_is_back(deployment: Deployment) -> None:
    down_s, count = size(3, 60), size(100, 1000)
    client = deployment.client()
    accepted = client.add_all(deployment.uploads(count))
    worker = deployment.service.start_worker()
    deployment.wait_for_stored(1)
    deployment.redis.kill()
    rejected = client.add_until(monotonic() + down_s)

    deployment.redis.start()
    restarted = monotonic()
    more = client.add_all(deployment.uploads(count, start=count), patience_s=30)
    outcomes = deployment.finish(f"Redis down for {down_s} s", accepted + more, since=restarted)

    assert_queue_unavailable(rejected)
    assert (outcomes.accepted, outcomes.stored) == (2 * count, 2 * count), outcomes
    assert deployment.service.starts(worker) == 1


def test_workers_recover_from_a_stalled_network_to_redis(deployment: Deployment) -> None:
    stall_s, count = size(7, 60), size(200, 2000)
    client = deployment.client()
    with Proxy(deployment.redis.port) as proxy:
        worker = deployment.service.start_worker(REDIS_URL=proxy.url("redis"))
        accepted = client.add_all(deployment.uploads(count))
        deployment.wait_for_stored(1)
        proxy.stall()
        sleep(stall_s)
        proxy.resume()

        outcomes = deployment.finish(f"network between workers and Redis stalled for {stall_s} s", accepted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert deployment.service.starts(worker) == 1


def test_a_stalled_network_to_redis_delays_no_short_request(deployment: Deployment) -> None:
    stall_s, count, clients = size(12, 60), size(100, 1000), 32
    with Proxy(deployment.redis.port) as proxy, ThreadPoolExecutor(clients) as pool:
        client = deployment.client(REDIS_URL=proxy.url("redis"))
        deployment.service.start_worker()
        before = client.add_all(deployment.uploads(count))
        proxy.stall()
        deadline = monotonic() + stall_s
        for n in range(clients):
            pool.submit(client.add_all, [Item(f"stalled-{n}", n)], patience_s=stall_s - 2)
        ping_s = []
        while monotonic() < deadline:
            ping_s.append(requests.get(f"{client.url}/ping", timeout=60).elapsed.total_seconds())
            sleep(0.2)
        proxy.resume()
        resumed = monotonic()
        after = client.add_all(deployment.uploads(count, start=count), patience_s=30)

        scenario = f"network between API and Redis stalled for {stall_s} s"
        outcomes = deployment.finish(scenario, before + after, since=resumed)

    assert (outcomes.accepted, outcomes.stored) == (2 * count, 2 * count), outcomes
    # The first requests wait. Then the circuit breaker rejects all but one at once.
    assert sorted(ping_s)[len(ping_s) // 2] < 1
    assert max(ping_s) < 10


def test_dead_connections_to_redis_are_replaced(deployment: Deployment) -> None:
    count = size(100, 1000)
    with Proxy(deployment.redis.port) as proxy:
        client = deployment.client(REDIS_URL=proxy.url("redis"))
        deployment.service.start_worker(REDIS_URL=proxy.url("redis"))
        before = client.add_all(deployment.uploads(count))
        deployment.wait_for_stored(count)
        proxy.forget()
        forgotten = monotonic()
        after = client.add_all(deployment.uploads(count, start=count), patience_s=60)

        outcomes = deployment.finish("firewall forgets every connection to Redis", before + after, since=forgotten)

    assert (outcomes.accepted, outcomes.stored) == (2 * count, 2 * count), outcomes
    assert client.slowest_s < 15


def test_adds_answer_503_while_redis_has_no_disk_space(deployment: Deployment) -> None:
    full_s, count = size(3, 60), size(100, 1000)
    client = deployment.client()
    worker = deployment.service.start_worker()
    before = client.add_all(deployment.uploads(count))
    deployment.wait_for_stored(1)
    with full_disk(deployment.redis):
        wait_until(lambda: not client.add(Item("rejected", 0)).ok, "an add is rejected")
        rejected = client.add_until(monotonic() + full_s)
    freed = monotonic()
    after = client.add_all(deployment.uploads(count, start=count), patience_s=30)

    outcomes = deployment.finish(f"disk of Redis full for {full_s} s", before + after, since=freed)

    assert_queue_unavailable(rejected)
    assert (outcomes.accepted, outcomes.stored) == (2 * count, 2 * count), outcomes
    assert deployment.service.starts(worker) == 1


def test_uploads_wait_for_their_redis_and_delay_no_others(deployment: Deployment, tmp_path: Path) -> None:
    count = size(50, 1000)
    # With `everysec`, a killed Redis loses the last writes if the disk is busy.
    with RedisServer(tmp_path / "uploads", appendfsync="always") as uploads_redis:
        settings = {"MATCH_UPLOADS_URL": uploads_redis.url}
        client = deployment.client(**settings)
        uploads = client.add_all(deployment.uploads(count))
        uploads_redis.kill()
        worker = deployment.service.start_worker(**settings)
        others = client.add_all(deployment.items(count, start=count))
        wait_for_ends(deployment.dependencies, others)
        waiting = read_stats(deployment.dependencies.redis).open
        rejected = client.add(Item("rejected", 0))
        uploads_redis.start()
        restarted = monotonic()

        scenario = "Redis of uploads down until other adds are stored"
        outcomes = deployment.finish(scenario, uploads + others, since=restarted)

    assert waiting == count
    assert_queue_unavailable([rejected])
    assert (outcomes.accepted, outcomes.stored) == (2 * count, 2 * count), outcomes
    assert deployment.service.starts(worker) == 1


def assert_queue_unavailable(responses: Sequence[requests.Response]) -> None:
    assert {(response.status_code, response.json()["code"]) for response in responses} == {(503, "queue_unavailable")}
    assert all(int(response.headers["Retry-After"]) > 0 for response in responses)


@contextmanager
def full_disk(redis: RedisServer) -> Iterator[None]:
    """Prevent every file of Redis from growing."""
    before = resource.prlimit(redis.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, before)
