"""A real API server accepts the manifests of `k8s/`, and their pods start under the restricted standard."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

from checks.objects import Object
from checks.render import SCALERS, Combination, combinations, extras, overlays, render
from dev.cluster.control_plane import KubectlFailed
from dev.cluster.namespaces import Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

ALL = list(combinations())
FULLEST = [Combination(overlay, (*scaler, *extras())) for overlay in overlays() for scaler in SCALERS if scaler]
FLOWER = "--selector=app.kubernetes.io/component=flower"


@pytest.mark.parametrize("combination", ALL, ids=str)
def test_each_combination_is_accepted_without_a_warning(combination: Combination, namespace: Namespace) -> None:
    warnings = namespace.apply(render(combination), "--dry-run=server")

    assert warnings == ""


@pytest.mark.usefixtures("disks")
@pytest.mark.parametrize("combination", FULLEST, ids=str)
def test_all_pods_start_under_the_restricted_standard(combination: Combination, namespace: Namespace) -> None:
    namespace.apply(render(combination))

    namespace.wait_until_up()

    assert namespace.names("deployment") == {"match", "match-worker", "match-flower"}
    assert namespace.names("job") == {"match-prepare"}
    assert namespace.names("poddisruptionbudget") >= {"match", "match-worker"}


@pytest.mark.usefixtures("disks")
def test_applying_again_changes_nothing(namespace: Namespace) -> None:
    objects = render(Combination("dev"))
    namespace.apply(objects)
    namespace.wait_until_up()
    before = generations(namespace)

    namespace.apply(objects)

    assert generations(namespace) == before


def generations(namespace: Namespace) -> dict[str, int]:
    """Return the generation of each object, which counts the changes of its specification."""
    things = namespace.objects("deployment,statefulset,networkpolicy,poddisruptionbudget,job")
    return {f"{thing['kind']}/{thing['metadata']['name']}": thing["metadata"]["generation"] for thing in things}


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        ({"securityContext": {"runAsNonRoot": False, "runAsUser": 0}}, "runAsNonRoot != true"),
        ({"hostNetwork": True}, "host namespaces"),
        ({"volumes": [{"name": "tmp", "hostPath": {"path": "/"}}]}, "restricted volume types"),
    ],
)
def test_an_unrestricted_pod_is_rejected(
    pod: dict[str, Any], reason: str, namespace: Namespace, wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    flower = flower_deployment()
    flower["spec"]["template"]["spec"] |= pod

    warning = namespace.apply([flower])

    assert reason in warning
    wait_for(lambda: reason in pod_errors(namespace))
    assert namespace.names("pod", FLOWER) == set()


def flower_deployment() -> Object:
    """Return flower's Deployment, the simplest one."""
    [flower] = [
        thing
        for thing in render(Combination("dev"))
        if thing["metadata"]["name"] == "match-flower" and "template" in thing["spec"]
    ]
    return flower


def pod_errors(namespace: Namespace) -> str:
    """Return the errors of the replica sets that create flower's pods."""
    conditions = [replicas["status"].get("conditions", []) for replicas in namespace.objects("replicaset", FLOWER)]
    return " ".join(condition.get("message", "") for condition in chain.from_iterable(conditions))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}, "may not be specified when strategy"),
        ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}, "may not be 0"),
        ({"selector": {"matchLabels": {"app.kubernetes.io/name": "other"}}}, "`selector` does not match template"),
        ({"replicaCount": 3}, "replicaCount"),
    ],
)
def test_an_invalid_manifest_is_rejected(spec: dict[str, Any], reason: str, namespace: Namespace) -> None:
    flower = flower_deployment()
    flower["spec"] |= spec

    with pytest.raises(KubectlFailed, match=reason):
        namespace.apply([flower])
