"""Each rule finds its fault in a broken manifest."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest

from checks import rules
from checks.definitions import wrong_fields
from checks.objects import Object, one
from checks.render import DEV, FULL, Rendered

# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)


def drop(objects: list[Object], kind: str, name: str) -> None:
    objects.remove(one(objects, kind, name))


def pod_of(objects: Sequence[Object], deployment: str) -> Object:
    return one(objects, "Deployment", deployment)["spec"]["template"]["spec"]


def named(items: Sequence[Object], name: str) -> Object:
    (item,) = (item for item in items if item["name"] == name)
    return item


def container(objects: Sequence[Object], deployment: str, name: str) -> Object:
    return named(pod_of(objects, deployment)["containers"], name)


def add_variable(objects: Sequence[Object], name: str, value: str) -> None:
    container(objects, "match", "api")["env"].append({"name": name, "value": value})


BROKEN: dict[str, tuple[Callable[[Sequence[Object]], list[str]], Callable[[list[Object]], Any], str]] = {
    "service's port": (
        rules.missing_ports,
        lambda o: one(o, "Service", "match")["spec"]["ports"][0].update(targetPort="web"),
        "Service match: Deployment match has no port web",
    ),
    "probe's port": (
        rules.missing_ports,
        lambda o: container(o, "match", "proxy")["readinessProbe"]["httpGet"].update(port=8888),
        "Deployment match, a probe: Deployment match has no port 8888",
    ),
    "policy's port": (
        rules.missing_ports,
        lambda o: one(o, "NetworkPolicy", "match-worker-metrics")["spec"]["ingress"][0]["ports"][0].update(port=9465),
        "NetworkPolicy match-worker-metrics: Deployment match-worker has no port 9465",
    ),
    "monitor's port": (
        rules.missing_ports,
        lambda o: one(o, "PodMonitor", "match-worker")["spec"]["podMetricsEndpoints"][0].update(port="web"),
        "PodMonitor match-worker: Deployment match-worker has no port web",
    ),
    "ingress's port": (
        rules.missing_ports,
        lambda o: one(o, "Service", "match")["spec"]["ports"][0].update(name="web"),
        "Ingress match /add: Service match has no port http",
    ),
    "route's port": (
        rules.missing_ports,
        lambda o: one(o, "Service", "match")["spec"]["ports"][0].update(port=8080),
        "HTTPRoute match /add: Service match has no port 80",
    ),
    "route's service": (
        rules.missing_ports,
        lambda o: drop(o, "Service", "match"),
        "HTTPRoute match /add/batch, match: unknown service",
    ),
    "monitor of pods": (
        rules.unscraped_monitors,
        lambda o: one(o, "PodMonitor", "match-worker")["spec"]["selector"].update(matchLabels={"app": "match"}),
        "PodMonitor match-worker selects nothing",
    ),
    "monitor of services": (
        rules.unscraped_monitors,
        lambda o: one(o, "ServiceMonitor", "match")["spec"]["selector"].update(matchLabels={"app": "match"}),
        "ServiceMonitor match selects nothing",
    ),
    "two autoscalers": (
        rules.competing_autoscalers,
        lambda o: one(o, "HorizontalPodAutoscaler", "match")["spec"]["scaleTargetRef"].update(name="match-worker"),
        "match-worker has 2 autoscalers",
    ),
    "missing ConfigMap": (
        rules.missing_keys,
        lambda o: container(o, "match", "api")["envFrom"][0]["configMapRef"].update(name="match-settings"),
        "Deployment match: ConfigMap match-settings does not exist",
    ),
    "missing key of an operator's Secret": (
        rules.missing_keys,
        lambda o: named(pod_of(o, "match")["volumes"], "elasticsearch-ca")["secret"].update(
            items=[{"key": "ca", "path": "ca"}]
        ),
        "Deployment match: Secret match-es-http-certs-public has no ca",
    ),
    "unknown variable": (
        rules.invalid_settings,
        lambda o: add_variable(o, "MATCH_API_THREAD", "8"),
        "Deployment match: unknown setting MATCH_API_THREAD",
    ),
    "invalid value": (
        rules.invalid_settings,
        lambda o: add_variable(o, "MATCH_API_THREADS", "many"),
        "Deployment match: MATCH_API_THREADS must be a whole number from 4 to 256",
    ),
    "unknown key of the ConfigMap": (
        rules.invalid_settings,
        lambda o: next(thing["data"] for thing in o if "WORKER_COUNT" in thing.get("data", {})).update(WORKERS="2"),
        "Deployment match: unknown setting WORKERS",
    ),
    "variable used too early": (
        rules.invalid_settings,
        lambda o: container(o, "match-worker", "worker")["env"].reverse(),
        "Deployment match-worker: ${ELASTICSEARCH_PASSWORD} is used before ELASTICSEARCH_PASSWORD is set",
    ),
    "missing file": (
        rules.unmounted_files,
        lambda o: named(container(o, "match", "api")["volumeMounts"], "api-keys").update(mountPath="/etc/match/keys"),
        "Deployment match: MATCH_API_KEYS_FILE is not mounted",
    ),
    "another port": (
        rules.unreached_ports,
        lambda o: add_variable(o, "PORT", "8889"),
        "Deployment match: gunicorn does not listen at [('127.0.0.1', '8888')]",
    ),
    "another address": (
        rules.unreached_ports,
        lambda o: add_variable(o, "MATCH_API_HOST", "0.0.0.0"),  # noqa: S104 - refused
        "Deployment match: gunicorn does not listen at [('127.0.0.1', '8888')]",
    ),
    "another port of metrics": (
        rules.unreached_ports,
        lambda o: container(o, "match-worker", "worker")["ports"][0].update(containerPort=9465),
        "Deployment match-worker: no container port for the metrics at 9464",
    ),
    "worker killed during work": (
        rules.short_grace_periods,
        lambda o: pod_of(o, "match-worker").pop("terminationGracePeriodSeconds"),
        "Deployment match-worker: terminationGracePeriodSeconds is below 60",
    ),
    "nginx killed while clients wait": (
        rules.short_grace_periods,
        lambda o: pod_of(o, "match").update(terminationGracePeriodSeconds=80),
        "Deployment match: terminationGracePeriodSeconds is below 85",
    ),
    "wait longer than nginx's": (
        rules.short_grace_periods,
        lambda o: add_variable(o, "MATCH_MAX_WAIT_S", "120"),
        "Deployment match: nginx exits 50 s before the longest wait",
    ),
    "nginx without preStop": (
        rules.early_shutdowns,
        lambda o: container(o, "match", "proxy").pop("lifecycle"),
        "Deployment match: nginx exits before its endpoint is removed",
    ),
    "gunicorn without preStop": (
        rules.early_shutdowns,
        lambda o: container(o, "match", "api").pop("lifecycle"),
        "Deployment match: gunicorn exits before nginx",
    ),
    "restart that waits for nginx": (
        rules.early_shutdowns,
        lambda o: container(o, "match", "api")["livenessProbe"].pop("terminationGracePeriodSeconds"),
        "Deployment match: a restart of gunicorn waits for nginx",
    ),
    "celery's probe": (
        rules.expensive_probes,
        lambda o: container(o, "match-worker", "worker").update(
            livenessProbe={"exec": {"command": ["celery", "inspect", "ping"]}}
        ),
        "Deployment match-worker: a probe sends messages through the queue",
    ),
    "memory limit": (
        rules.small_memory_limits,
        lambda o: container(o, "match-worker", "worker")["resources"]["limits"].update(memory="1Gi"),
        "Deployment match-worker: the memory limit of worker is below 1784 MiB",
    ),
    "liveness checks the store": (
        rules.expensive_probes,
        lambda o: container(o, "match", "api")["livenessProbe"]["httpGet"].update(path="/readyz"),
        "Deployment match: an outage of the store restarts it",
    ),
    "token": (
        rules.cluster_variables,
        lambda o: pod_of(o, "match").pop("automountServiceAccountToken"),
        "Deployment match: automountServiceAccountToken is not false",
    ),
    "service links": (
        rules.cluster_variables,
        lambda o: pod_of(o, "match").pop("enableServiceLinks"),
        "Deployment match: enableServiceLinks is not false",
    ),
    "no label": (
        rules.missing_labels,
        lambda o: one(o, "Ingress", "match")["metadata"]["labels"].pop("app.kubernetes.io/component"),
        "Ingress match has no label app.kubernetes.io/component",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_finds_its_fault(rendered: Rendered, name: str) -> None:
    rule, break_it, expected = BROKEN[name]
    objects = deepcopy(list(rendered[FULL]))

    break_it(objects)

    assert expected in rule(objects)


def test_each_rule_has_a_broken_manifest() -> None:
    assert {rule for rule, _, _ in BROKEN.values()} == set(rules.RULES)


def secret(key: str) -> Object:
    """Return the Secret `match` with one key."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "match"}, "stringData": {key: "a value"}}


def test_a_missing_key_of_a_secret_is_found(rendered: Rendered) -> None:
    objects = [*rendered[DEV], secret("elasticsearch.url")]

    faults = rules.missing_keys(objects)

    assert "Deployment match-worker: Secret match has no redis.url" in faults


def test_an_unread_key_is_found(rendered: Rendered) -> None:
    objects = [*rendered[DEV], secret("elasticsearch.urls")]

    faults = rules.unread_keys(objects)

    assert "Secret match: no reader of elasticsearch.urls" in faults


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "match"), ("NetworkPolicy", "match-internet")])
def test_a_field_unknown_to_kubernetes_is_found(rendered: Rendered, kind: str, name: str) -> None:
    thing = deepcopy(one(rendered[FULL], kind, name))
    thing["spec"]["polictyTypes"] = ["Egress"]

    with pytest.raises(kubernetes_validate.ValidationError, match="polictyTypes"):
        kubernetes_validate.validate(thing, "1.34", strict=True)


@pytest.mark.parametrize(
    ("kind", "name"), [("ScaledObject", "match-worker"), ("PodMonitor", "match-worker"), ("HTTPRoute", "match")]
)
def test_a_field_unknown_to_its_operator_is_found(
    rendered: Rendered, require: Callable[..., Any], kind: str, name: str
) -> None:
    thing = deepcopy(one(rendered[FULL], kind, name))
    thing["spec"]["maxReplicas"] = 5

    assert any("maxReplicas" in fault for fault in require(wrong_fields, thing))


def test_a_value_of_a_wrong_type_is_found(rendered: Rendered, require: Callable[..., Any]) -> None:
    thing = deepcopy(one(rendered[FULL], "ScaledObject", "match-worker"))
    thing["spec"]["triggers"][0]["metadata"]["listLength"] = 500

    assert any("500 is not of type 'string'" in fault for fault in require(wrong_fields, thing))
