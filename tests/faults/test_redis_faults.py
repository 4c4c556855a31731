"""Redis that dies, is away or cannot be heard: what was accepted before is stored after."""

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
import requests

from dev.redis_server import RedisServer
from support.accounts import Item, wait_for_ends
from support.proxy import Proxy
from support.stage import Stage, size
from support.stores import wait_for_stored
from support.waiting import wait_until


@pytest.mark.parametrize("redis", ["everysec", "always"], indirect=True)
def test_a_redis_killed_again_and_again_loses_nothing(stage: Stage) -> None:
    kills, count = size(2, 10), size(200, 2000)
    fsync = stage.parts.redis.config_get("appendfsync")["appendfsync"]
    client = stage.client()
    stage.service.start_worker()
    with ThreadPoolExecutor() as pool:
        adding = pool.submit(client.add_all, stage.items(count), patience_s=60)
        for nth in range(1, kills + 1):
            wait_for_stored(stage.parts.store, count * nth // (kills + 2))
            stage.redis.kill()
            stage.redis.start()
        back = monotonic()
        accepted = adding.result()

    found = stage.finish(f"Redis (appendfsync {fsync}) killed {kills} times during adds", accepted, since=back)

    assert (found.accepted, found.stored) == (count, count)


def test_without_redis_adds_are_told_to_come_back_and_all_goes_on_when_it_is_back(stage: Stage) -> None:
    away_s, count = size(3, 60), size(100, 1000)
    client = stage.client()
    accepted = client.add_all(stage.uploads(count))
    worker = stage.service.start_worker()
    wait_for_stored(stage.parts.store, 1)
    stage.redis.kill()
    refused = []
    until = monotonic() + away_s
    while monotonic() < until:
        refused.append(client.add(Item("refused", 0)))
        sleep(0.2)

    stage.redis.start()
    back = monotonic()
    more = client.add_all(stage.uploads(count, start=count), patience_s=30)
    found = stage.finish(f"Redis away for {away_s} s", accepted + more, since=back)

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "queue_unavailable")}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert (found.accepted, found.stored) == (2 * count, 2 * count)
    assert stage.service.starts(worker) == 1


def test_a_half_open_network_between_workers_and_redis_ends_by_itself(stage: Stage) -> None:
    stall_s, count = size(7, 60), size(200, 2000)
    client = stage.client()
    with Proxy(stage.redis.port) as proxy:
        worker = stage.service.start_worker(REDIS_URL=proxy.url("redis"))
        accepted = client.add_all(stage.uploads(count))
        wait_for_stored(stage.parts.store, 1)
        proxy.stall()
        sleep(stall_s)
        proxy.resume()

        found = stage.finish(f"network between workers and Redis stalled for {stall_s} s", accepted)

    assert (found.accepted, found.stored) == (count, count)
    assert stage.service.starts(worker) == 1


def test_a_half_open_network_between_api_and_redis_holds_up_no_short_request(stage: Stage) -> None:
    stall_s, count, crowd = size(12, 60), size(100, 1000), 32
    with Proxy(stage.redis.port) as proxy, ThreadPoolExecutor(crowd) as pool:
        client = stage.client(REDIS_URL=proxy.url("redis"))
        stage.service.start_worker()
        before = client.add_all(stage.uploads(count))
        proxy.stall()
        until = monotonic() + stall_s
        for n in range(crowd):
            pool.submit(client.add_all, [Item(f"stalled-{n}", n)], patience_s=stall_s - 2)
        pings = []
        while monotonic() < until:
            pings.append(requests.get(f"{client.url}/ping", timeout=60).elapsed.total_seconds())
            sleep(0.2)
        proxy.resume()
        resumed = monotonic()
        after = client.add_all(stage.uploads(count, start=count), patience_s=30)

        scenario = f"network between API and Redis stalled for {stall_s} s"
        found = stage.finish(scenario, before + after, since=resumed)

    assert (found.accepted, found.stored) == (2 * count, 2 * count)
    # At first all ask at once; from then on everybody but one is told at once.
    assert sorted(pings)[len(pings) // 2] < 1
    assert max(pings) < 10


def test_connections_to_redis_that_went_dead_unnoticed_are_replaced(stage: Stage) -> None:
    count = size(100, 1000)
    with Proxy(stage.redis.port) as proxy:
        client = stage.client(REDIS_URL=proxy.url("redis"))
        stage.service.start_worker(REDIS_URL=proxy.url("redis"))
        before = client.add_all(stage.uploads(count))
        wait_for_stored(stage.parts.store, count)
        proxy.forget()
        forgotten = monotonic()
        after = client.add_all(stage.uploads(count, start=count), patience_s=60)

        found = stage.finish("every connection to Redis forgotten by a firewall", before + after, since=forgotten)

    assert (found.accepted, found.stored) == (2 * count, 2 * count)
    assert client.slowest_s < 15


def test_a_redis_whose_disk_is_full_refuses_adds_and_goes_on_when_there_is_room(stage: Stage) -> None:
    full_s, count = size(3, 60), size(100, 1000)
    client = stage.client()
    worker = stage.service.start_worker()
    before = client.add_all(stage.uploads(count))
    wait_for_stored(stage.parts.store, 1)
    with full_disk(stage.redis):
        wait_until(lambda: not client.add(Item("refused", 0)).ok, "an add is refused")
        refused = []
        until = monotonic() + full_s
        while monotonic() < until:
            refused.append(client.add(Item("refused", 0)))
            sleep(0.2)
    back = monotonic()
    after = client.add_all(stage.uploads(count, start=count), patience_s=30)

    found = stage.finish(f"disk of Redis full for {full_s} s", before + after, since=back)

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "queue_unavailable")}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert (found.accepted, found.stored) == (2 * count, 2 * count)
    assert stage.service.starts(worker) == 1


def test_uploads_whose_own_redis_is_away_wait_and_hold_up_no_others(stage: Stage, tmp_path: Path) -> None:
    count = size(50, 1000)
    with RedisServer(tmp_path / "uploads") as place:
        settings = {"MATCH_UPLOADS_URL": place.url}
        client = stage.client(**settings)
        uploads = client.add_all(stage.uploads(count))
        place.kill()
        worker = stage.service.start_worker(**settings)
        others = client.add_all(stage.items(count, start=count))
        wait_for_ends(stage.parts, others)
        waiting = stage.parts.ledger.open_count()
        refused = client.add(Item("refused", 0))
        place.start()
        back = monotonic()

        found = stage.finish("Redis of the uploads away until the others are stored", uploads + others, since=back)

    assert waiting == count
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_unavailable")
    assert (found.accepted, found.stored) == (2 * count, 2 * count)
    assert stage.service.starts(worker) == 1


@contextmanager
def full_disk(redis: RedisServer) -> Iterator[None]:
    """Let no file of Redis grow any more."""
    before = resource.prlimit(redis.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, before)
