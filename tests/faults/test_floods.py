"""More uploads than fit into Redis: accepted ones are stored, and adds succeed again soon."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from support.deployment import Deployment, size

MIB = 1024 * 1024


def test_an_upload_flood_is_rejected_before_redis_is_full(deployment: Deployment) -> None:
    free, count = size(4, 40) * MIB, size(600, 8000)
    redis = deployment.dependencies.redis
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + free)
    client = deployment.client()
    with ThreadPoolExecutor(2) as pool:
        floods = [pool.submit(client.add_all, deployment.uploads(count, start=n * count)) for n in range(2)]
        accepted = [add for flood in floods for add in flood.result()]
    flooded = monotonic()
    deployment.service.start_worker()

    outcomes = deployment.finish(f"{2 * count} uploads into a Redis with {free // MIB} MiB", accepted, since=flooded)
    after = client.add_all(deployment.uploads(10, start=2 * count), patience_s=30)

    assert client.rejected
    assert {response.status_code for response in client.rejected} == {503}
    assert all(int(response.headers["Retry-After"]) > 0 for response in client.rejected)
    assert (outcomes.accepted, outcomes.stored) == (len(accepted), len(accepted)), outcomes
    assert len(after) == 10
