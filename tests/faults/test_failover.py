"""Redis behind Sentinels: when it dies, its replica takes over, and the service finds it by itself."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from harness.accounts import Item
from harness.sentinel import SECRETS, WatchedRedis
from harness.stage import Stage, size
from harness.waiting import wait_for_stored


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[WatchedRedis]:
    with WatchedRedis(tmp_path) as watched:
        yield watched


def test_what_was_accepted_before_a_failover_is_stored_after_it(stage: Stage, redis: WatchedRedis) -> None:
    count = size(100, 1000)
    client = stage.client()
    before = client.add_all(stage.uploads(count))
    worker = stage.service.start_worker()
    wait_for_stored(stage.parts.store, 1)
    redis.wait_until_copied()
    redis.primary.kill()
    killed = monotonic()
    refused = client.add(Item("refused", 0))
    after = client.add_all(stage.uploads(count, start=count), patience_s=60)

    found = stage.settle("failover to a replica by a Sentinel", before + after, since=killed)

    assert refused.status_code == 503
    assert (found.accepted, found.stored) == (2 * count, 2 * count)
    assert stage.service.starts(worker) == 1
    assert not [secret for secret in SECRETS if secret in stage.service.log(worker)]
