"""A real API server accepts the manifests of `k8s/`, and their pods start under the strictest pod security."""

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
def test_a_combination_is_taken_without_a_warning(combination: Combination, namespace: Namespace) -> None:
    warnings = namespace.apply(render(combination), "--dry-run=server")

    assert warnings == ""


@pytest.mark.usefixtures("disks")
@pytest.mark.parametrize("combination", FULLEST, ids=str)
def test_everything_comes_up_where_pods_must_be_restricted(combination: Combination, namespace: Namespace) -> None:
    namespace.apply(render(combination))

    namespace.wait_until_up()

    assert namespace.names("deployment") == {"match", "match-worker", "match-flower"}
    assert namespace.names("job") == {"match-prepare"}
    assert namespace.names("poddisruptionbudget") >= {"match", "match-worker"}


@pytest.mark.usefixtures("disks")
def test_what_is_applied_again_stays_as_it_is(namespace: Namespace) -> None:
    objects = render(Combination("dev"))
    namespace.apply(objects)
    namespace.wait_until_up()
    before = generations(namespace)

    namespace.apply(objects)

    assert generations(namespace) == before


def generations(namespace: Namespace) -> dict[str, int]:
    """Return the generation of each object: the number of changes of its specification."""
    objects = namespace.objects("deployment,statefulset,networkpolicy,poddisruptionbudget,job")
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["generation"] for one in objects}


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        ({"securityContext": {"runAsNonRoot": False, "runAsUser": 0}}, "runAsNonRoot != true"),
        ({"hostNetwork": True}, "host namespaces"),
        ({"volumes": [{"name": "tmp", "hostPath": {"path": "/"}}]}, "restricted volume types"),
    ],
)
def test_a_careless_pod_is_refused(
    pod: dict[str, Any], reason: str, namespace: Namespace, wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    flower = flower_alone()
    flower["spec"]["template"]["spec"] |= pod

    warning = namespace.apply([flower])

    assert reason in warning
    wait_for(lambda: reason in pod_errors(namespace))
    assert namespace.names("pod", FLOWER) == set()


def flower_alone() -> Object:
    """Return flower's Deployment, the simplest there is."""
    [flower] = [
        one
        for one in render(Combination("dev"))
        if one["metadata"]["name"] == "match-flower" and "template" in one["spec"]
    ]
    return flower


def pod_errors(namespace: Namespace) -> str:
    """Return the messages of the replica sets that create flower's pods."""
    conditions = [one["status"].get("conditions", []) for one in namespace.objects("replicaset", FLOWER)]
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
def test_an_illegal_manifest_is_refused(spec: dict[str, Any], reason: str, namespace: Namespace) -> None:
    flower = flower_alone()
    flower["spec"] |= spec

    with pytest.raises(KubectlFailed, match=reason):
        namespace.apply([flower])
