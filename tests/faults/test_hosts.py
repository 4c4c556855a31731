"""Image hosts that limit their clients, or are down: their images are stored later, and none fails."""

from collections.abc import Iterator
from time import monotonic, sleep

import pytest

from support.adds import Item
from support.deployment import Deployment, size
from support.http_servers import serving
from support.limited_host import TOO_MANY_REQUESTS, UNAVAILABLE, LimitedHost
from support.service import wait_for_workers
from support.waiting import wait_until

# A busy machine downloads more a second than this, too.
RATE = float(size(5, 20))
DOWN_S = size(3, 60)


@pytest.fixture
def host() -> Iterator[LimitedHost]:
    with serving(LimitedHost(RATE)) as host:
        yield host


@pytest.fixture
def timeouts(host: LimitedHost) -> dict[str, str]:
    return {"MATCH_FETCH_ALLOW": host.address}


def items(host: LimitedHost, count: int) -> list[Item]:
    return [Item(f"{n:05}", n, f"{host.url}/{n}") for n in range(count)]


def test_images_of_a_limiting_host_are_stored(deployment: Deployment, host: LimitedHost) -> None:
    count = size(30, 400)
    client = deployment.client()
    deployment.service.start_worker()
    wait_for_workers(deployment.redis.url, 1)
    began = monotonic()
    accepted = client.add_batch(items(host, count))

    outcomes = deployment.finish(f"host that allows {RATE:g} requests a second, since the add", accepted, since=began)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert host.answers[TOO_MANY_REQUESTS] > 0


def test_images_of_a_host_that_was_down_are_stored(deployment: Deployment, host: LimitedHost) -> None:
    count = size(50, 400)
    client = deployment.client()
    deployment.service.start_worker()
    host.rate, host.is_down = 1000.0, True
    accepted = client.add_batch(items(host, count))
    wait_until(lambda: host.answers[UNAVAILABLE] > 0, "the worker requests an image")
    sleep(DOWN_S)
    host.is_down = False
    refused = host.answers[UNAVAILABLE]

    outcomes = deployment.finish(f"host down for {DOWN_S} s, {refused} requests meanwhile", accepted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert refused > 0
