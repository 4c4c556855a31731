"""Redis's clock set back by an hour: requests keep their order, and lost messages are resent."""

from dataclasses import replace

from common.queue.keys import LEASE, OPEN, SEQ
from support.deployment import Deployment, size

AN_HOUR_S = 3600


def test_request_order_survives_a_backward_redis_clock(deployment: Deployment) -> None:
    count = size(50, 500)
    client = deployment.client()
    deployment.service.start_worker()
    first = client.add_all(deployment.uploads(count))
    set_clock_back(deployment)
    second = client.add_all([replace(item, number=item.number + count) for item in deployment.uploads(count)])

    newest = {add.item.filepath: add.item.number for add in second}
    outcomes = deployment.finish("Redis's clock set back by an hour, then newer adds", first + second, newest=newest)

    assert (outcomes.accepted, outcomes.stored) == (2 * count, 2 * count), outcomes


def test_lost_messages_are_resent_after_a_backward_redis_clock(deployment: Deployment) -> None:
    count = size(20, 200)
    accepted = deployment.client().add_all(deployment.uploads(count))
    deployment.dependencies.redis.delete("match")
    set_clock_back(deployment)
    deployment.service.start_worker()

    outcomes = deployment.finish("messages lost, then Redis's clock set back by an hour", accepted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes


def set_clock_back(deployment: Deployment) -> None:
    """Move all of Redis's timestamps an hour into the future, which equals a clock that is set back.

    Keys that expire do so by the same clock.
    """
    redis = deployment.dependencies.redis
    redis.incrby(SEQ, AN_HOUR_S * 1_000_000)
    for task_id, timestamp in redis.zrange(OPEN, 0, -1, withscores=True):
        redis.zadd(OPEN, {task_id: timestamp + AN_HOUR_S * 1000})
    for key in redis.scan_iter(f"{LEASE}*"):
        redis.pexpire(key, AN_HOUR_S * 1000)
    redis.set(f"{LEASE}sweep", 1, px=AN_HOUR_S * 1000)
