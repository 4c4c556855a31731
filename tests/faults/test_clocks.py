"""Redis's clock set back by an hour: requests keep their order, and what was lost is found all the same."""

from dataclasses import replace

from common.queue.keys import LEASE, OPEN, SEQ
from support.stage import Stage, size

AN_HOUR_S = 3600


def test_requests_keep_their_order_when_redis_clock_is_set_back(stage: Stage) -> None:
    count = size(50, 500)
    client = stage.client()
    stage.service.start_worker()
    first = client.add_all(stage.uploads(count))
    set_back(stage)
    second = client.add_all([replace(item, number=item.number + count) for item in stage.uploads(count)])

    newest = {one.item.filepath: one.item.number for one in second}
    found = stage.finish("Redis's clock set back by an hour, then newer adds", first + second, newest=newest)

    assert (found.accepted, found.stored) == (2 * count, 2 * count)


def test_what_was_lost_before_redis_clock_was_set_back_is_sent_again(stage: Stage) -> None:
    count = size(20, 200)
    accepted = stage.client().add_all(stage.uploads(count))
    stage.parts.redis.delete("match")
    set_back(stage)
    stage.service.start_worker()

    found = stage.finish("messages lost, then Redis's clock set back by an hour", accepted)

    assert (found.accepted, found.stored) == (count, count)


def set_back(stage: Stage) -> None:
    """Move all that Redis's clock has stamped an hour into the future, as it seems when the clock is set back.

    What a Redis keeps for a while has its end by the same clock.
    """
    redis = stage.parts.redis
    redis.incrby(SEQ, AN_HOUR_S * 1_000_000)
    for task_id, at in redis.zrange(OPEN, 0, -1, withscores=True):
        redis.zadd(OPEN, {task_id: at + AN_HOUR_S * 1000})
    for key in redis.scan_iter(f"{LEASE}*"):
        redis.pexpire(key, AN_HOUR_S * 1000)
    redis.set(f"{LEASE}sweep", 1, px=AN_HOUR_S * 1000)
