"""More adds than there is room for: what is accepted is stored, the rest is told to come back, and soon may."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from support.stage import Stage, size

MIB = 1024 * 1024


def test_a_flood_of_uploads_is_refused_before_redis_is_full_and_worked_off(stage: Stage) -> None:
    most, count = size(4, 40) * MIB, size(600, 8000)
    redis = stage.parts.redis
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + most)
    client = stage.client()
    with ThreadPoolExecutor(2) as pool:
        floods = [pool.submit(client.add_all, stage.uploads(count, start=n * count)) for n in range(2)]
        accepted = [one for flood in floods for one in flood.result()]
    flooded = monotonic()
    stage.service.start_worker()

    found = stage.finish(f"a flood of {2 * count} uploads into {most // MIB} MiB", accepted, since=flooded)
    after = client.add_all(stage.uploads(10, start=2 * count), patience_s=30)

    assert client.refused
    assert {answer.status_code for answer in client.refused} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in client.refused)
    assert (found.accepted, found.stored) == (len(accepted), len(accepted))
    assert len(after) == 10
