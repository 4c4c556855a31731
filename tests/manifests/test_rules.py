"""The rules find what they are there for: manifests that are broken on purpose."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest

from checks import rules
from checks.definitions import wrong_fields
from checks.objects import Object, one
from checks.render import Combination

ALL = Combination("prod", ("keda", "eck", "gateway", "ingress", "prometheus", "real-ip", "api-keys"))
TRIED = Combination("dev")
# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)

Rendered = Mapping[Combination, Sequence[Object]]


def drop(objects: list[Object], kind: str, name: str) -> None:
    objects.remove(one(objects, kind, name))


def pod_of(objects: Sequence[Object], deployment: str) -> Object:
    return one(objects, "Deployment", deployment)["spec"]["template"]["spec"]


def container(objects: Sequence[Object], deployment: str, called: str) -> Object:
    (found,) = (one for one in pod_of(objects, deployment)["containers"] if one["name"] == called)
    return found


def volume(objects: Sequence[Object], deployment: str, called: str) -> Object:
    (found,) = (one for one in pod_of(objects, deployment)["volumes"] if one["name"] == called)
    return found


def mount(objects: Sequence[Object], deployment: str, of: str, called: str) -> Object:
    (found,) = (one for one in container(objects, deployment, of)["volumeMounts"] if one["name"] == called)
    return found


def add_variable(objects: Sequence[Object], name: str, value: str) -> None:
    container(objects, "match", "api")["env"].append({"name": name, "value": value})


BROKEN: dict[str, tuple[Callable[[Sequence[Object]], list[str]], Callable[[list[Object]], Any], str]] = {
    "service's port": (
        rules.ports_that_nobody_has,
        lambda o: one(o, "Service", "match")["spec"]["ports"][0].update(targetPort="web"),
        "Service match: Deployment match has no port web",
    ),
    "probe's port": (
        rules.ports_that_nobody_has,
        lambda o: container(o, "match", "proxy")["readinessProbe"]["httpGet"].update(port=8888),
        "Deployment match, a probe: Deployment match has no port 8888",
    ),
    "policy's port": (
        rules.ports_that_nobody_has,
        lambda o: one(o, "NetworkPolicy", "match-worker-metrics")["spec"]["ingress"][0]["ports"][0].update(port=9465),
        "NetworkPolicy match-worker-metrics: Deployment match-worker has no port 9465",
    ),
    "monitor's port": (
        rules.ports_that_nobody_has,
        lambda o: one(o, "PodMonitor", "match-worker")["spec"]["podMetricsEndpoints"][0].update(port="web"),
        "PodMonitor match-worker: Deployment match-worker has no port web",
    ),
    "ingress's port": (
        rules.ports_that_nobody_has,
        lambda o: one(o, "Service", "match")["spec"]["ports"][0].update(name="web"),
        "Ingress match /add: Service match has no port http",
    ),
    "route's port": (
        rules.ports_that_nobody_has,
        lambda o: one(o, "Service", "match")["spec"]["ports"][0].update(port=8080),
        "HTTPRoute match /add: Service match has no port 80",
    ),
    "route's service": (
        rules.ports_that_nobody_has,
        lambda o: drop(o, "Service", "match"),
        "HTTPRoute match /add/batch, match: there is no such service",
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
    "lost ConfigMap": (
        rules.keys_that_are_missing,
        lambda o: container(o, "match", "api")["envFrom"][0]["configMapRef"].update(name="match-settings"),
        "Deployment match: there is no ConfigMap match-settings",
    ),
    "lost key of an operator's Secret": (
        rules.keys_that_are_missing,
        lambda o: volume(o, "match", "elasticsearch-ca")["secret"].update(items=[{"key": "ca", "path": "ca"}]),
        "Deployment match: Secret match-es-http-certs-public has no ca",
    ),
    "unknown variable": (
        rules.settings_that_are_unknown,
        lambda o: add_variable(o, "MATCH_API_THREAD", "8"),
        "Deployment match: no setting is called MATCH_API_THREAD",
    ),
    "wrong value": (
        rules.settings_that_are_unknown,
        lambda o: add_variable(o, "MATCH_API_THREADS", "many"),
        "Deployment match: MATCH_API_THREADS must be a whole number from 4 to 256",
    ),
    "unknown key of the ConfigMap": (
        rules.settings_that_are_unknown,
        lambda o: next(thing["data"] for thing in o if "WORKER_COUNT" in thing.get("data", {})).update(WORKERS="2"),
        "Deployment match: no setting is called WORKERS",
    ),
    "a variable that comes too late": (
        rules.settings_that_are_unknown,
        lambda o: container(o, "match-worker", "worker")["env"].reverse(),
        "Deployment match-worker: ${ELASTICSEARCH_PASSWORD} stands before ELASTICSEARCH_PASSWORD",
    ),
    "lost file": (
        rules.files_that_are_not_mounted,
        lambda o: mount(o, "match", "api", "api-keys").update(mountPath="/etc/match/keys"),
        "Deployment match: MATCH_API_KEYS_FILE is not mounted",
    ),
    "another port": (
        rules.unreached_ports,
        lambda o: add_variable(o, "PORT", "8889"),
        "Deployment match: nginx looks for gunicorn at [('127.0.0.1', '8888')]",
    ),
    "another address": (
        rules.unreached_ports,
        lambda o: add_variable(o, "MATCH_API_HOST", "0.0.0.0"),  # noqa: S104 - refused
        "Deployment match: nginx looks for gunicorn at [('127.0.0.1', '8888')]",
    ),
    "another port of metrics": (
        rules.unreached_ports,
        lambda o: container(o, "match-worker", "worker")["ports"][0].update(containerPort=9465),
        "Deployment match-worker: metrics are at port 9464",
    ),
    "a worker killed at its work": (
        rules.short_grace_periods,
        lambda o: pod_of(o, "match-worker").pop("terminationGracePeriodSeconds"),
        "Deployment match-worker: terminationGracePeriodSeconds is less than the 60 that it may take",
    ),
    "nginx killed while clients wait": (
        rules.short_grace_periods,
        lambda o: pod_of(o, "match").update(terminationGracePeriodSeconds=80),
        "Deployment match: terminationGracePeriodSeconds is less than the 85 that it may take",
    ),
    "a wait that is longer than nginx's": (
        rules.short_grace_periods,
        lambda o: add_variable(o, "MATCH_MAX_WAIT_S", "120"),
        "Deployment match: nginx ends 50 s before the longest wait",
    ),
    "nginx that ends at once": (
        rules.early_ends,
        lambda o: container(o, "match", "proxy").pop("lifecycle"),
        "Deployment match: nginx ends before its endpoint is removed",
    ),
    "gunicorn that ends at once": (
        rules.early_ends,
        lambda o: container(o, "match", "api").pop("lifecycle"),
        "Deployment match: gunicorn ends before nginx",
    ),
    "celery's probe": (
        rules.expensive_probes,
        lambda o: container(o, "match-worker", "worker").update(
            livenessProbe={"exec": {"command": ["celery", "inspect", "ping"]}}
        ),
        "Deployment match-worker: a probe that asks over the queue",
    ),
    "restarts for the store's sake": (
        rules.expensive_probes,
        lambda o: container(o, "match", "api")["livenessProbe"]["httpGet"].update(path="/readyz"),
        "Deployment match: is restarted when its store is away",
    ),
    "token": (
        rules.variables_of_the_cluster,
        lambda o: pod_of(o, "match").pop("automountServiceAccountToken"),
        "Deployment match: automountServiceAccountToken is not false",
    ),
    "service links": (
        rules.variables_of_the_cluster,
        lambda o: pod_of(o, "match").pop("enableServiceLinks"),
        "Deployment match: enableServiceLinks is not false",
    ),
    "no label": (
        rules.objects_without_our_labels,
        lambda o: one(o, "Ingress", "match")["metadata"]["labels"].pop("app.kubernetes.io/component"),
        "Ingress match has no label app.kubernetes.io/component",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_sees_what_it_is_there_for(rendered: Rendered, name: str) -> None:
    rule, break_it, expected = BROKEN[name]
    objects = deepcopy(list(rendered[ALL]))

    break_it(objects)

    assert expected in rule(objects)


def test_each_rule_is_broken_on_purpose_by_some_test() -> None:
    assert {rule for rule, _, _ in BROKEN.values()} == set(rules.RULES)


def test_a_key_of_a_secret_that_is_missing_is_seen(rendered: Rendered) -> None:
    objects = deepcopy(list(rendered[TRIED]))
    del one(objects, "Secret", "match")["stringData"]["redis.url"]

    faults = rules.keys_that_are_missing(objects)

    assert "Deployment match-worker: Secret match has no redis.url" in faults


def test_a_key_that_nobody_reads_is_seen(rendered: Rendered) -> None:
    objects = deepcopy(list(rendered[TRIED]))
    one(objects, "Secret", "match")["stringData"]["elasticsearch.urls"] = "http://elasticsearch:9200"

    faults = rules.keys_that_nobody_reads(objects)

    assert "Secret match: nobody reads elasticsearch.urls" in faults


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "match"), ("NetworkPolicy", "match-internet")])
def test_a_field_that_no_version_knows_is_seen(rendered: Rendered, kind: str, name: str) -> None:
    thing = deepcopy(one(rendered[ALL], kind, name))
    thing["spec"]["polictyTypes"] = ["Egress"]

    with pytest.raises(kubernetes_validate.ValidationError, match="polictyTypes"):
        kubernetes_validate.validate(thing, "1.34", strict=True)


@pytest.mark.parametrize(
    ("kind", "name"), [("ScaledObject", "match-worker"), ("PodMonitor", "match-worker"), ("HTTPRoute", "match")]
)
def test_a_field_that_no_operator_knows_is_seen(
    rendered: Rendered, needed: Callable[..., Any], kind: str, name: str
) -> None:
    thing = deepcopy(one(rendered[ALL], kind, name))
    thing["spec"]["maxReplicas"] = 5

    assert any("maxReplicas" in fault for fault in needed(wrong_fields, thing))


def test_a_value_that_no_operator_takes_is_seen(rendered: Rendered, needed: Callable[..., Any]) -> None:
    thing = deepcopy(one(rendered[ALL], "ScaledObject", "match-worker"))
    thing["spec"]["triggers"][0]["metadata"]["listLength"] = 500

    assert any("500 is not of type 'string'" in fault for fault in needed(wrong_fields, thing))
