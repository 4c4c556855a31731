"""KEDA and Kubernetes' autoscaler follow the ledger of a real Redis as the manifests configure them."""

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
# KEDA makes it of the rule.
AUTOSCALER = "hpa/keda-hpa-match-worker"
RULE = "scaledobject/match-worker"
PATIENTLY = f"--timeout={TIMEOUT_S}s"
# Three times the period after which the autoscaler may remove workers.
STILL = "--timeout=15s"
WaitFor = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def scaler(cluster: Cluster) -> Iterator[None]:
    with keda(cluster):
        yield


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def work(queue: RedisServer) -> Iterator[Ledger]:
    with Redis.from_url(queue.url) as client:
        yield Ledger(client, max_open=1_000_000, finished_keep_s=60, failed_keep_s=600)


@pytest.fixture
def service(scaler: None, namespace: Namespace, queue: RedisServer) -> Iterator[Namespace]:
    """The service as in production, with a Redis of the test's, once KEDA watches it."""
    assert scaler is None
    secret = {"redis.address": f"127.0.0.1:{queue.port}", "redis.url": queue.url}
    literals = [f"--from-literal={key}={value}" for key, value in secret.items()]
    namespace.kubectl("create", "secret", "generic", "match", *literals)
    namespace.apply(hastened(render(Combination("prod", ("keda",)))))
    namespace.wait_until_up()
    namespace.kubectl("wait", "--for=condition=Ready", RULE, PATIENTLY)
    yield namespace
    # While KEDA is there to let go of it: the namespace could not end else.
    namespace.kubectl("delete", RULE, PATIENTLY)


def hastened(objects: list[Object]) -> list[Object]:
    """Shorten how often KEDA looks and how long fewer must do: seconds where production takes 15 and 300."""
    [rule] = [one["spec"] for one in objects if one["kind"] == "ScaledObject"]
    rule["pollingInterval"] = 1
    rule["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 5
    return objects


def workers(service: Namespace) -> int:
    return int(service.field(WORKERS, ".spec.replicas"))


def required_workers(service: Namespace, open_tasks: int) -> int:
    """Return the number of workers that the manifest asks for."""
    spec = json.loads(service.field(RULE, ".spec"))
    [trigger] = spec["triggers"]
    many = ceil(open_tasks / int(trigger["metadata"]["listLength"]))
    return int(max(spec["minReplicaCount"], min(spec["maxReplicaCount"], many)))


def test_workers_scale_with_open_tasks(service: Namespace, work: Ledger, wait_for: WaitFor) -> None:
    least, most = required_workers(service, 0), required_workers(service, 10**9)
    wait_for(lambda: workers(service) == least)

    with service.watching(WORKERS, ".spec.replicas") as seen:
        some = [task.id for task in accept_urls(work, 2_900, queue=BATCH_QUEUE)]
        wait_for(lambda: workers(service) == required_workers(service, 2_900))
        more = [task.id for task in accept_urls(work, 20_000, queue=BATCH_QUEUE)]
        wait_for(lambda: workers(service) == most)
        succeed(work, *some, *more)
        wait_for(lambda: workers(service) == least)

    numbers = [int(line) for line in seen]
    top = numbers.index(most)
    assert least < required_workers(service, 2_900) < most
    assert numbers[:top] == sorted(numbers[:top])
    assert numbers[top:] == sorted(numbers[top:], reverse=True)


def test_workers_stay_while_what_they_took_is_not_done(service: Namespace, work: Ledger, wait_for: WaitFor) -> None:
    least, busy = required_workers(service, 0), required_workers(service, 2_900)
    tasks = [task.id for task in accept_urls(work, 2_900, queue=BATCH_QUEUE)]
    wait_for(lambda: workers(service) == busy)

    # All of it is running now, none waits: the queue's own list would be empty.
    for task in tasks:
        work.begin(task)
    with pytest.raises(KubectlFailed, match="timed out"):
        service.kubectl("wait", WORKERS, f"--for=jsonpath={{.spec.replicas}}={least}", STILL)
    stayed = workers(service)
    succeed(work, *tasks)
    wait_for(lambda: workers(service) == least)

    assert stayed == busy


def test_workers_are_not_scaled_while_redis_is_unavailable(
    service: Namespace, work: Ledger, queue: RedisServer, wait_for: WaitFor
) -> None:
    busy = required_workers(service, 2_900)
    tasks = [task.id for task in accept_urls(work, 2_900, queue=BATCH_QUEUE)]
    wait_for(lambda: workers(service) == busy)

    queue.stop()
    # KEDA cannot create its scaler again, and does not use its own fallback: the autoscaler has no metric and waits.
    service.kubectl("wait", AUTOSCALER, "--for=condition=ScalingActive=false", PATIENTLY)
    with pytest.raises(KubectlFailed, match="timed out"):
        service.kubectl("wait", WORKERS, f"--for=jsonpath={{.spec.replicas}}={required_workers(service, 0)}", STILL)
    stayed = workers(service)
    queue.start()
    succeed(work, *tasks)
    wait_for(lambda: workers(service) == required_workers(service, 0))

    assert stayed == busy
