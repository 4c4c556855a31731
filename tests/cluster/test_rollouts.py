"""During rollouts of the API and drains of nodes, the required number of pods is ready."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.render import Combination, render
from dev.cluster.control_plane import Cluster, KubectlFailed
from dev.cluster.namespaces import TIMEOUT_S, Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PODS = 4
API = "deployment/match"
API_PODS = "--selector=app.kubernetes.io/component=api"
TIMEOUT = f"--timeout={TIMEOUT_S}s"


@pytest.fixture
def api(namespace: Namespace) -> Namespace:
    """The service as in production, its API on four pods."""
    namespace.apply(render(Combination("prod", ())))
    namespace.kubectl("scale", API, f"--replicas={PODS}")
    namespace.wait_until_up()
    return namespace


def fewest_ready(events: list[str]) -> int:
    """Return the lowest number of ready pods that do not terminate; the first events list all pods."""
    ready: set[str] = set()
    counts = []
    for event in events:
        kind, name, deleted_at, is_ready = event.rstrip("\n").split("|")
        if is_ready == "True" and not deleted_at and kind != "DELETED":
            ready.add(name)
        else:
            ready.discard(name)
        counts.append(len(ready))
    return min(counts[PODS - 1 :])


def terminating(events: list[str]) -> set[str]:
    """Return the names of the pods that terminate."""
    return {event.split("|")[1] for event in events if event.split("|")[2]}


def test_a_rolling_update_keeps_all_pods_ready(api: Namespace, wait_for: Callable[[Callable[[], bool]], None]) -> None:
    before = api.names("pod", API_PODS)

    with api.watching_pods(API_PODS) as events:
        api.kubectl("set", "env", API, "MATCH_LOG_LEVEL=debug")
        api.kubectl("rollout", "status", API, TIMEOUT)
        # The watch may lag behind.
        wait_for(lambda: terminating(events) == before)

    assert fewest_ready(events) == PODS


def test_an_unavailable_pod_during_an_update_is_counted(api: Namespace) -> None:
    strategy = '{"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 1}}}}'
    api.kubectl("patch", API, "--type=merge", "--patch", strategy)

    with api.watching_pods(API_PODS) as events:
        api.kubectl("set", "env", API, "MATCH_LOG_LEVEL=debug")
        api.kubectl("rollout", "status", API, TIMEOUT)

    assert fewest_ready(events) == PODS - 1


def test_a_version_that_never_gets_ready_replaces_no_pod(api: Namespace) -> None:
    template = '{"metadata": {"annotations": {"match.example/never-ready": "yes"}}}'
    broken = f'{{"spec": {{"progressDeadlineSeconds": 20, "template": {template}}}}}'

    with api.watching_pods(API_PODS) as events:
        api.kubectl("patch", API, "--type=merge", "--patch", broken)
        with pytest.raises(KubectlFailed, match="exceeded its progress deadline"):
            api.kubectl("rollout", "status", API, TIMEOUT)
        api.kubectl("rollout", "undo", API)
        api.kubectl("rollout", "status", API, TIMEOUT)

    assert len(events) > PODS
    assert fewest_ready(events) == PODS


def test_drained_nodes_evict_one_pod_at_a_time(api: Namespace, cluster: Cluster) -> None:
    nodes = "--selector=topology.kubernetes.io/zone!=west"
    try:
        with api.watching_pods(API_PODS) as events:
            cluster.kubectl("drain", nodes, "--pod-selector", API_PODS.partition("=")[2], "--delete-emptydir-data")
            api.wait_until_up()
    finally:
        cluster.kubectl("uncordon", nodes)

    nodes_used = {
        pod["spec"]["nodeName"] for pod in api.objects("pod", API_PODS) if pod["status"]["phase"] == "Running"
    }
    assert {node.partition("-")[0] for node in nodes_used} == {"west"}
    assert fewest_ready(events) == PODS - 1


def test_pods_are_spread_over_zones_and_nodes(api: Namespace) -> None:
    nodes = [pod["spec"]["nodeName"] for pod in api.objects("pod", API_PODS)]

    assert len(set(nodes)) == PODS
    assert {node.partition("-")[0] for node in nodes} == {"north", "south", "west"}


def test_k8s_rollout_prepares_the_index_before_the_deployments(namespace: Namespace) -> None:
    make_rollout(namespace)
    [first] = namespace.objects("job")

    make_rollout(namespace)

    [second] = namespace.objects("job")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    deployments = namespace.objects("deployment")
    assert {thing["metadata"]["name"] for thing in deployments} == {"match", "match-worker", "match-flower"}
    # Both have a resolution of a second, in UTC.
    assert min(thing["metadata"]["creationTimestamp"] for thing in deployments) >= first["status"]["completionTime"]


def make_rollout(namespace: Namespace) -> None:
    """Run the command of the operator's guide."""
    kubectl = f"KUBECTL={shlex.join(namespace.cluster.command)}"
    command = ["make", "-C", str(ROOT), "k8s-rollout", kubectl, f"NAMESPACE={namespace.name}", "OVERLAY=prod"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S * 3)
    assert done.returncode == 0, done.stderr
