"""Redis with a replica: when that takes over, the service finds it by itself."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from support.accounts import Item
from support.replicated import SECRETS, MovingRedis, WatchedRedis
from support.stage import Stage, size
from support.stores import wait_for_stored


@pytest.fixture(params=[WatchedRedis, MovingRedis], ids=["sentinel", "address"])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WatchedRedis | MovingRedis]:
    with request.param(tmp_path) as replicated:
        yield replicated


def test_what_was_accepted_before_a_failover_is_stored_after_it(
    stage: Stage, redis: WatchedRedis | MovingRedis
) -> None:
    count = size(100, 1000)
    client = stage.client()
    before = client.add_all(stage.uploads(count))
    worker = stage.service.start_worker()
    wait_for_stored(stage.parts.store, 1)
    redis.wait_until_copied()
    if isinstance(redis, MovingRedis):
        how = "the address of Redis moves to its replica"
        redis.move()
    else:
        how = "a Sentinel puts a replica in the place of Redis"
        redis.primary.kill()
    gone = monotonic()
    refused = client.add(Item("refused", 0))
    after = client.add_all(stage.uploads(count, start=count), patience_s=60)

    found = stage.finish(how, before + after, since=gone)

    assert refused.status_code in {202, 503}
    assert (found.accepted, found.stored) == (2 * count, 2 * count)
    assert stage.service.starts(worker) == 1
    assert not [secret for secret in SECRETS if secret in stage.service.log(worker)]
