"""Failover of Redis to a replica: the service follows without a restart."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from support.adds import Item
from support.deployment import Deployment, size
from support.replicated import SECRETS, MovingRedis, SentinelRedis

SCENARIOS = {
    SentinelRedis: "Sentinel promotes a replica of Redis",
    MovingRedis: "address of Redis moves to a promoted replica",
}


@pytest.fixture(params=SCENARIOS, ids=["sentinel", "address"])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SentinelRedis | MovingRedis]:
    with request.param(tmp_path) as replicated:
        yield replicated


def test_adds_accepted_before_a_failover_are_stored_afterwards(
    deployment: Deployment, redis: SentinelRedis | MovingRedis
) -> None:
    count = size(100, 1000)
    client = deployment.client()
    before = client.add_all(deployment.uploads(count))
    worker = deployment.service.start_worker()
    deployment.wait_for_stored(1)
    redis.wait_for_replication()
    redis.fail_over()
    failed_over = monotonic()
    during = client.add(Item("rejected", 0))
    after = client.add_all(deployment.uploads(count, start=count), patience_s=60)

    outcomes = deployment.finish(SCENARIOS[type(redis)], before + after, since=failed_over)

    assert during.status_code in {202, 503}
    assert (outcomes.accepted, outcomes.stored) == (2 * count, 2 * count), outcomes
    assert deployment.service.starts(worker) == 1
    assert not [secret for secret in SECRETS if secret in deployment.service.log(worker)]
