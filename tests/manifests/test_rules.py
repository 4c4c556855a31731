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

ALL = Combination("prod", ("keda", "eck", "ingress", "prometheus", "api-keys"))
TRIED = Combination("dev")
# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)

Rendered = Mapping[Combination, Sequence[Object]]


def container(objects: Sequence[Object], kind: str, name: str) -> Object:
    (found,) = one(objects, kind, name)["spec"]["template"]["spec"]["containers"]
    return found


def drop(objects: list[Object], kind: str, name: str) -> None:
    objects.remove(one(objects, kind, name))


def pod_of(objects: Sequence[Object], kind: str, name: str) -> Object:
    return one(objects, kind, name)["spec"]["template"]["spec"]


def volume(objects: Sequence[Object], kind: str, name: str, called: str) -> Object:
    (found,) = (one for one in pod_of(objects, kind, name)["volumes"] if one["name"] == called)
    return found


def mount(objects: Sequence[Object], kind: str, name: str, called: str) -> Object:
    (found,) = (one for one in container(objects, kind, name)["volumeMounts"] if one["name"] == called)
    return found


def add_variable(objects: Sequence[Object], name: str, value: str) -> None:
    container(objects, "Deployment", "match")["env"].append({"name": name, "value": value})


BROKEN: dict[str, tuple[Callable[[Sequence[Object]], list[str]], Callable[[list[Object]], Any], str]] = {
    "service": (
        rules.selectors_that_match_nothing,
        lambda o: one(o, "Service", "match")["spec"]["selector"].update({"app.kubernetes.io/component": "web"}),
        "Service match selects no pod",
    ),
    "budget": (
        rules.selectors_that_match_nothing,
        lambda o: one(o, "PodDisruptionBudget", "match-worker")["spec"]["selector"]["matchLabels"].update(app="match"),
        "PodDisruptionBudget match-worker selects no pod",
    ),
    "policy": (
        rules.selectors_that_match_nothing,
        lambda o: one(o, "NetworkPolicy", "match-api")["spec"]["podSelector"]["matchLabels"].update(app="match"),
        "NetworkPolicy match-api selects no pod",
    ),
    "policy's peer": (
        rules.selectors_that_match_nothing,
        lambda o: one(o, "NetworkPolicy", "match-to-eck")["spec"]["egress"][0]["to"][0].update(
            podSelector={"matchLabels": {"app": "elasticsearch"}}
        ),
        "NetworkPolicy match-to-eck, a peer selects no pod",
    ),
    "spread": (
        rules.selectors_that_match_nothing,
        lambda o: pod_of(o, "Deployment", "match")["topologySpreadConstraints"][0].update(
            labelSelector={"matchLabels": {"app": "match"}}
        ),
        "Deployment match, its spread selects no pod",
    ),
    "monitor": (
        rules.selectors_that_match_nothing,
        lambda o: one(o, "ServiceMonitor", "match")["spec"]["selector"].update(matchLabels={"app": "match"}),
        "ServiceMonitor match selects no service",
    ),
    "workload": (
        rules.selectors_that_match_nothing,
        lambda o: one(o, "Deployment", "match")["spec"]["selector"]["matchLabels"].update(app="match"),
        "Deployment match does not select its own pods",
    ),
    "two workloads": (
        rules.selectors_that_overlap,
        lambda o: one(o, "Deployment", "match")["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component"),
        "Deployment match also selects the pods of Deployment match-worker",
    ),
    "two budgets": (
        rules.selectors_that_overlap,
        lambda o: one(o, "PodDisruptionBudget", "match")["spec"]["selector"]["matchLabels"].pop(
            "app.kubernetes.io/component"
        ),
        "Deployment match-worker: more than one budget, and no pod of it can be evicted",
    ),
    "service's port": (
        rules.ports_that_nobody_has,
        lambda o: one(o, "Service", "match")["spec"]["ports"][0].update(targetPort="web"),
        "Service match: Deployment match has no port web",
    ),
    "probe's port": (
        rules.ports_that_nobody_has,
        lambda o: container(o, "Deployment", "match")["readinessProbe"]["httpGet"].update(port=8080),
        "Deployment match, a probe: Deployment match has no port 8080",
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
    "ingress's service": (
        rules.ports_that_nobody_has,
        lambda o: drop(o, "Service", "match"),
        "Ingress match /add, match: there is no such service",
    ),
    "lost ConfigMap": (
        rules.keys_that_are_missing,
        lambda o: container(o, "Deployment", "match")["envFrom"][0]["configMapRef"].update(name="match-settings"),
        "Deployment match: there is no ConfigMap match-settings",
    ),
    "lost key of an operator's Secret": (
        rules.keys_that_are_missing,
        lambda o: volume(o, "Deployment", "match", "elasticsearch-ca")["secret"].update(
            items=[{"key": "ca", "path": "ca"}]
        ),
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
        lambda o: next(thing for thing in o if thing["kind"] == "ConfigMap")["data"].update(WORKERS="2"),
        "Deployment match: no setting is called WORKERS",
    ),
    "a variable that comes too late": (
        rules.settings_that_are_unknown,
        lambda o: container(o, "Deployment", "match-worker")["env"].reverse(),
        "Deployment match-worker: ${ELASTICSEARCH_PASSWORD} stands before ELASTICSEARCH_PASSWORD",
    ),
    "lost file": (
        rules.files_that_are_not_mounted,
        lambda o: mount(o, "Deployment", "match", "api-keys").update(mountPath="/etc/match/keys"),
        "Deployment match: MATCH_API_KEYS_FILE is not mounted",
    ),
    "shut port": (
        rules.ports_that_the_image_does_not_open,
        lambda o: container(o, "Deployment", "match-flower")["ports"][0].update(containerPort=5556),
        "Deployment match-flower: match-flower has no port but 5555",
    ),
    "another port": (
        rules.ports_that_the_image_does_not_open,
        lambda o: add_variable(o, "PORT", "8889"),
        "Deployment match: it listens on 8889",
    ),
    "image without a tag": (
        rules.images_without_a_version,
        lambda o: container(o, "Deployment", "match").update(image="registry.example.com:5000/match-api"),
        "Deployment match: registry.example.com:5000/match-api does not say which",
    ),
    "the latest image": (
        rules.images_without_a_version,
        lambda o: container(o, "Deployment", "match").update(image="match-api:latest"),
        "Deployment match: match-api:latest does not say which",
    ),
    "scaler": (
        rules.scalers_without_a_target,
        lambda o: one(o, "ScaledObject", "match-worker")["spec"]["scaleTargetRef"].update(name="match-workers"),
        "ScaledObject match-worker scales Deployment match-workers, which is not there",
    ),
    "scaler's login": (
        rules.scalers_without_a_target,
        lambda o: drop(o, "TriggerAuthentication", "match-redis"),
        "ScaledObject match-worker: there is no TriggerAuthentication match-redis",
    ),
    "two scalers": (
        rules.scalers_without_a_target,
        lambda o: one(o, "HorizontalPodAutoscaler", "match")["spec"]["scaleTargetRef"].update(name="match-worker"),
        "Deployment match-worker is scaled by more than one",
    ),
    "replicas": (
        rules.scalers_without_a_target,
        lambda o: one(o, "Deployment", "match")["spec"].update(replicas=3),
        "Deployment match says how many it has, which HorizontalPodAutoscaler match decides",
    ),
    "a share of nothing": (
        rules.scalers_without_a_target,
        lambda o: container(o, "Deployment", "match")["resources"]["requests"].pop("cpu"),
        "HorizontalPodAutoscaler match: Deployment match requests no cpu",
    ),
    "stuck rollout": (
        rules.rollouts_that_cannot_move,
        lambda o: one(o, "Deployment", "match")["spec"]["strategy"]["rollingUpdate"].update(maxSurge="0%"),
        "Deployment match: maxSurge and maxUnavailable are both 0",
    ),
    "stuck drain": (
        rules.rollouts_that_cannot_move,
        lambda o: one(o, "PodDisruptionBudget", "match")["spec"].update(maxUnavailable=0),
        "PodDisruptionBudget match: no node could be drained",
    ),
    "root": (
        rules.pods_that_are_not_restricted,
        lambda o: pod_of(o, "Deployment", "match")["securityContext"].update(runAsUser=0),
        "Deployment match, api: may run as root",
    ),
    "privileges": (
        rules.pods_that_are_not_restricted,
        lambda o: container(o, "Deployment", "match-worker")["securityContext"].pop("allowPrivilegeEscalation"),
        "Deployment match-worker, worker: may gain privileges",
    ),
    "capabilities": (
        rules.pods_that_are_not_restricted,
        lambda o: container(o, "Deployment", "match")["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "Deployment match, api: keeps capabilities",
    ),
    "seccomp": (
        rules.pods_that_are_not_restricted,
        lambda o: pod_of(o, "Job", "match-prepare")["securityContext"].pop("seccompProfile"),
        "Job match-prepare, prepare: has no seccomp profile",
    ),
    "root file system": (
        rules.pods_that_are_not_restricted,
        lambda o: container(o, "Deployment", "match-flower")["securityContext"].pop("readOnlyRootFilesystem"),
        "Deployment match-flower, flower: may write to its root file system",
    ),
    "token": (
        rules.pods_that_are_not_restricted,
        lambda o: pod_of(o, "Deployment", "match").pop("automountServiceAccountToken"),
        "Deployment match: has a token for the cluster's API",
    ),
    "service links": (
        rules.pods_that_are_not_restricted,
        lambda o: pod_of(o, "Deployment", "match").pop("enableServiceLinks"),
        "Deployment match: is given variables that look like settings",
    ),
    "the host's network": (
        rules.pods_that_are_not_restricted,
        lambda o: pod_of(o, "Deployment", "match").update(hostNetwork=True),
        "Deployment match: hostNetwork",
    ),
    "the host's files": (
        rules.pods_that_are_not_restricted,
        lambda o: pod_of(o, "Deployment", "match")["volumes"].append({"name": "logs", "hostPath": {"path": "/var"}}),
        "Deployment match: mounts the host's {'path': '/var'}",
    ),
    "lost volume": (
        rules.mounts_that_lead_nowhere,
        lambda o: pod_of(o, "Deployment", "match-worker")["volumes"].pop(),
        "Deployment match-worker: tmp is mounted and no volume",
    ),
    "idle volume": (
        rules.mounts_that_lead_nowhere,
        lambda o: container(o, "Deployment", "match-flower").pop("volumeMounts"),
        "Deployment match-flower: tmp is never mounted",
    ),
    "a worker killed at its work": (
        rules.pods_ended_too_soon,
        lambda o: pod_of(o, "Deployment", "match-worker").pop("terminationGracePeriodSeconds"),
        "Deployment match-worker: terminationGracePeriodSeconds is less than the 60 that it may take",
    ),
    "an API killed while clients wait": (
        rules.pods_ended_too_soon,
        lambda o: add_variable(o, "MATCH_MAX_WAIT_S", "120"),
        "Deployment match: terminationGracePeriodSeconds is less than the 135 that it may take",
    ),
    "an API that ends at once": (
        rules.pods_ended_too_soon,
        lambda o: container(o, "Deployment", "match").pop("lifecycle"),
        "Deployment match: ends before proxies know of it",
    ),
    "celery's probe": (
        rules.probes_that_cost,
        lambda o: container(o, "Deployment", "match-worker").update(
            livenessProbe={"exec": {"command": ["celery", "inspect", "ping"]}}
        ),
        "Deployment match-worker: a probe that asks over the queue",
    ),
    "no probe": (
        rules.probes_that_cost,
        lambda o: container(o, "Deployment", "match").pop("readinessProbe"),
        "Deployment match: no readiness probe",
    ),
    "restarts for the store's sake": (
        rules.probes_that_cost,
        lambda o: container(o, "Deployment", "match")["livenessProbe"]["httpGet"].update(path="/readyz"),
        "Deployment match: is restarted when its store is away",
    ),
    "no bound": (
        rules.pods_without_bounds,
        lambda o: container(o, "Deployment", "match")["resources"].pop("limits"),
        "Deployment match, api: no requests of CPU and memory, or no limit of memory",
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
    ("kind", "name"), [("ScaledObject", "match-worker"), ("PodMonitor", "match-worker"), ("Elasticsearch", "match")]
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
