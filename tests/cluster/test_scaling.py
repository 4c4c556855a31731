"""KEDA and the autoscaler of Kubernetes scale the workers by the ledger in a real Redis."""

import json
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path

import pytest
from redis import Redis

from checks.objects import Object
from checks.render import Combination, render
from common.queue.jobs import BATCH_QUEUE
from common.queue.ledger import Ledger
from dev.cluster.control_plane import Cluster, KubectlFailed
from dev.cluster.keda import keda
from dev.cluster.namespaces import TIMEOUT_S, Namespace
from dev.redis_server import RedisServer
from support.tasks import accept_urls, succeed

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

WORKERS = "deployment/match-worker"
# KEDA creates it from the ScaledObject.
AUTOSCALER = "hpa/keda-hpa-match-worker"
SCALED_OBJECT = "scaledobject/match-worker"
TIMEOUT = f"--timeout={TIMEOUT_S}s"
# Three times the stabilization window of a scale-down.
NO_CHANGE = "--timeout=15s"
WaitFor = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def running_keda(cluster: Cluster) -> Iterator[None]:
    with keda(cluster):
        yield


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def ledger(redis: RedisServer) -> Iterator[Ledger]:
    with Redis.from_url(redis.url) as client:
        yield Ledger(client, max_open=1_000_000, finished_keep_s=60, failed_keep_s=600)


@pytest.fixture
def service(running_keda: None, namespace: Namespace, redis: RedisServer) -> Iterator[Namespace]:
    """The service as in production, with the test's Redis, after KEDA has begun to watch it."""
    assert running_keda is None
    secret = {"redis.address": f"127.0.0.1:{redis.port}", "redis.url": redis.url}
    literals = [f"--from-literal={key}={value}" for key, value in secret.items()]
    namespace.kubectl("create", "secret", "generic", "match", *literals)
    namespace.apply(with_short_intervals(render(Combination("prod", ("keda",)))))
    namespace.wait_until_up()
    namespace.kubectl("wait", "--for=condition=Ready", SCALED_OBJECT, TIMEOUT)
    yield namespace
    # KEDA must remove its finalizer, else the namespace is never deleted.
    namespace.kubectl("delete", SCALED_OBJECT, TIMEOUT)


def with_short_intervals(objects: list[Object]) -> list[Object]:
    """Shorten KEDA's polling interval and stabilization window, which are 15 s and 300 s in production."""
    [spec] = [thing["spec"] for thing in objects if thing["kind"] == "ScaledObject"]
    spec["pollingInterval"] = 1
    spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 5
    return objects


def accept(ledger: Ledger, count: int) -> list[str]:
    return [task.id for task in accept_urls(ledger, count, queue=BATCH_QUEUE)]


def workers(service: Namespace) -> int:
    return int(service.field(WORKERS, ".spec.replicas"))


def required_workers(service: Namespace, open_tasks: int) -> int:
    """Return the number of workers by the manifest."""
    spec = json.loads(service.field(SCALED_OBJECT, ".spec"))
    count = ceil(open_tasks / int(spec["advanced"]["scalingModifiers"]["target"]))
    return int(max(spec["minReplicaCount"], min(spec["maxReplicaCount"], count)))


def test_the_number_of_workers_follows_the_open_tasks(service: Namespace, ledger: Ledger, wait_for: WaitFor) -> None:
    least, most = required_workers(service, 0), required_workers(service, 10**9)
    wait_for(lambda: workers(service) == least)

    with service.watching(WORKERS, ".spec.replicas") as seen:
        some = accept(ledger, 2_900)
        wait_for(lambda: workers(service) == required_workers(service, 2_900))
        more = accept(ledger, 20_000)
        wait_for(lambda: workers(service) == most)
        succeed(ledger, *some, *more)
        wait_for(lambda: workers(service) == least)

    numbers = [int(line) for line in seen]
    top = numbers.index(most)
    assert least < required_workers(service, 2_900) < most
    assert numbers[:top] == sorted(numbers[:top])
    assert numbers[top:] == sorted(numbers[top:], reverse=True)


def test_workers_stay_while_tasks_are_running(service: Namespace, ledger: Ledger, wait_for: WaitFor) -> None:
    least, busy = required_workers(service, 0), required_workers(service, 2_900)
    tasks = accept(ledger, 2_900)
    wait_for(lambda: workers(service) == busy)

    # All tasks are running, so that the queue's list would be empty.
    for task in tasks:
        ledger.begin(task)
    with pytest.raises(KubectlFailed, match="timed out"):
        service.kubectl("wait", WORKERS, f"--for=jsonpath={{.spec.replicas}}={least}", NO_CHANGE)
    stayed = workers(service)
    succeed(ledger, *tasks)
    wait_for(lambda: workers(service) == least)

    assert stayed == busy


def test_workers_stay_while_redis_is_down(
    service: Namespace, ledger: Ledger, redis: RedisServer, wait_for: WaitFor
) -> None:
    busy = required_workers(service, 2_900)
    tasks = accept(ledger, 2_900)
    wait_for(lambda: workers(service) == busy)

    redis.stop()
    # KEDA cannot build its scaler and never uses its own fallback. The autoscaler has no metric and waits.
    service.kubectl("wait", AUTOSCALER, "--for=condition=ScalingActive=false", TIMEOUT)
    with pytest.raises(KubectlFailed, match="timed out"):
        service.kubectl("wait", WORKERS, f"--for=jsonpath={{.spec.replicas}}={required_workers(service, 0)}", NO_CHANGE)
    stayed = workers(service)
    redis.start()
    succeed(ledger, *tasks)
    wait_for(lambda: workers(service) == required_workers(service, 0))

    assert stayed == busy
