"""Every overlay with every component: schemas, Pod Security, a linter and the rules of Match."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from checks.definitions import is_custom, wrong_fields
from checks.objects import Object, named, of_kind, one
from checks.redis_command import read_appendonly, running_redis
from checks.render import DEV, MANIFESTS, PROD, Combination, Rendered, RenderFailed, combinations, overlays, render
from checks.rules import RULES, Rule, keys_of_secrets, missing_keys, unread_keys
from checks.tools import KUBE_SCORE, POD_SECURITY, build
from common.queue.keys import DEFERRED, OPEN

# The oldest version with every field that the manifests use, one in between, and the newest with a schema.
VERSIONS = ("1.31", "1.34", "1.37")
COMBINATIONS = list(combinations())
# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)

# Findings of kube-score that were decided otherwise, by their comment.
EXCEPTIONS = {
    # A limit would slow a pod down next to idle cores.
    "container-resources": lambda comment: comment == "CPU limit is not set",
    # A tag is never moved to another build, and a node that has the image starts it without a registry.
    "container-image-pull-policy": lambda _comment: True,
    # Pods are spread by topologySpreadConstraints.
    "deployment-has-host-podantiaffinity": lambda _comment: True,
}
EXCEPTIONS_OF = {
    # One is enough. Two would each show a part of the events.
    ("Deployment match-flower", "deployment-replicas"),
    ("Deployment match-flower", "deployment-strategy"),
    # Without an autoscaler, as in dev, there is one replica.
    ("Deployment match", "deployment-replicas"),
    # Their images require their own users.
    ("StatefulSet redis", "container-security-context-user-group-id"),
    ("StatefulSet elasticsearch", "container-security-context-user-group-id"),
    ("StatefulSet opensearch", "container-security-context-user-group-id"),
    # Its image writes to its own folders at the start.
    ("StatefulSet elasticsearch", "container-security-context-readonlyrootfilesystem"),
    ("StatefulSet opensearch", "container-security-context-readonlyrootfilesystem"),
    # An operator creates its pods.
    ("NetworkPolicy match-eck", "networkpolicy-targets-pod"),
}
CRITICAL_AND_WARNING = 5
REDIS_PASSWORD, ELASTIC_PASSWORD = "oneSecret1", "anotherSecret2"


def distinct(rendered: Rendered) -> list[Object]:
    return list(
        {json.dumps(thing, sort_keys=True): thing for objects in rendered.values() for thing in objects}.values()
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_overlay_keeps_every_rule(rendered: Rendered, rule: Rule) -> None:
    faults = [f"{combination}: {fault}" for combination, objects in rendered.items() for fault in rule(objects)]

    assert faults == []


@pytest.mark.parametrize("overlay", overlays())
def test_each_key_of_an_overlay_has_a_reader(rendered: Rendered, overlay: str) -> None:
    unread = [set(unread_keys(objects)) for combination, objects in rendered.items() if combination.overlay == overlay]

    assert set.intersection(*unread) == set()


def test_the_readme_lists_every_key_of_the_secrets(rendered: Rendered) -> None:
    read = set.union(*(keys_of_secrets(objects) for objects in rendered.values()))

    table = (MANIFESTS / "README.md").read_text().partition("| Secret | key |")[2].partition("\n\n")[0]
    documented = set()
    name = ""
    for secret, keys in re.findall(r"^\| (?:`([\w-]+)`)? ?\| ([^|]*)\|", table, flags=re.MULTILINE):
        name = secret or name
        documented |= {(name, key) for key in re.findall(r"`([\w.-]+)`", keys)}
    assert read == documented


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schemas_of_kubernetes(rendered: Rendered, version: str) -> None:
    for thing in distinct(rendered):
        if not is_custom(thing):
            kubernetes_validate.validate(thing, version, strict=True)


def test_every_custom_resource_fits_its_schema(rendered: Rendered, require: Callable[..., Any]) -> None:
    resources = [thing for thing in distinct(rendered) if is_custom(thing)]

    faults = [f"{named(thing)}: {error}" for thing in resources for error in require(wrong_fields, thing)]

    kinds = {"ScaledObject", "Elasticsearch", "HTTPRoute", "ServiceMonitor", "PodMonitor"}
    assert {thing["kind"] for thing in resources} >= kinds
    assert faults == []


def test_kube_score_has_only_decided_findings(rendered: Rendered, require: Callable[..., Any], tmp_path: Path) -> None:
    program = require(build, KUBE_SCORE)
    everything = tmp_path / "all.yaml"

    findings = set()
    for objects in rendered.values():
        everything.write_text(yaml.dump_all(objects))
        findings |= kube_score_findings(program, everything)

    assert findings - EXCEPTIONS_OF == set()
    assert EXCEPTIONS_OF - findings == set(), "unused exceptions"


def kube_score_findings(program: Path, file: Path) -> set[tuple[str, str]]:
    command = [program, "score", "--output-format", "json", "--kubernetes-version", f"v{VERSIONS[-2]}"]
    command += ["--enable-optional-test", "container-seccomp-profile", file]
    scores = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return {
        (f"{thing['type_meta']['kind']} {thing['object_meta']['name']}", check["check"]["id"])
        for thing in scores
        for check in thing["checks"]
        if not check["skipped"] and check["grade"] <= CRITICAL_AND_WARNING
        for comment in check["comments"] or [{"summary": ""}]
        if not EXCEPTIONS.get(check["check"]["id"], lambda _comment: False)(comment["summary"])
    }


def test_every_pod_meets_the_restricted_standard(
    rendered: Rendered, require: Callable[..., Any], tmp_path: Path
) -> None:
    assert rejected_pods(require(build, POD_SECURITY), distinct(rendered), tmp_path) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot != true"),
        ({"hostNetwork": True}, "host namespaces"),
        ({"volumes": [{"name": "logs", "hostPath": {"path": "/var"}}]}, "restricted volume types"),
    ],
)
def test_an_unrestricted_pod_is_found(
    rendered: Rendered, require: Callable[..., Any], tmp_path: Path, change: Mapping[str, Any], reason: str
) -> None:
    flower = deepcopy(one(rendered[PROD], "Deployment", "match-flower"))
    flower["spec"]["template"]["spec"] |= change

    assert reason in rejected_pods(require(build, POD_SECURITY), [flower], tmp_path)


def rejected_pods(program: Path, objects: Sequence[Object], folder: Path) -> str:
    """Return a line for each workload whose pods Kubernetes would reject."""
    file = folder / "workloads"
    kinds = ("Deployment", "StatefulSet", "Job")
    file.write_text("\n".join(json.dumps(thing) for thing in of_kind(objects, *kinds)))
    return subprocess.run([program, file], capture_output=True, text=True, check=True).stdout


def test_names_of_dsys_match_still_work(rendered: Rendered) -> None:
    objects = rendered[PROD]

    service = one(objects, "Service", "match")
    api = one(objects, "Deployment", "match")
    containers = {container["name"]: container for container in api["spec"]["template"]["spec"]["containers"]}
    read = {
        variable["name"]: (variable["valueFrom"]["secretKeyRef"]["name"], variable["valueFrom"]["secretKeyRef"]["key"])
        for variable in containers["api"]["env"]
        if "valueFrom" in variable
    }

    assert service["spec"]["ports"][0]["port"] == 80
    assert read["ELASTICSEARCH_URL"] == ("match", "elasticsearch.url")
    assert read["ELASTICSEARCH_INDEX"] == ("match", "elasticsearch.index")
    assert read["ELASTICSEARCH_DOC_TYPE"] == ("match", "elasticsearch.doc-type")


def test_workers_are_scaled_by_open_tasks_without_held_ones(rendered: Rendered) -> None:
    (scaler,) = of_kind(rendered[PROD], "ScaledObject")
    lists = {trigger["name"]: trigger["metadata"]["listName"] for trigger in scaler["spec"]["triggers"]}

    assert {trigger["type"] for trigger in scaler["spec"]["triggers"]} == {"redis"}
    assert lists == {"open_tasks": OPEN, "deferred_tasks": DEFERRED}
    assert scaler["spec"]["advanced"]["scalingModifiers"]["formula"] == "open_tasks - deferred_tasks"
    # Without a worker, no sweeper would resend lost messages.
    assert scaler["spec"]["minReplicaCount"] >= 1


@pytest.mark.parametrize("name", ["match", "match-worker"])
def test_a_rollout_adds_a_pod_before_removing_one(rendered: Rendered, name: str) -> None:
    strategy = one(rendered[PROD], "Deployment", name)["spec"]["strategy"]["rollingUpdate"]

    assert (strategy["maxSurge"], strategy["maxUnavailable"]) == (1, 0)


@pytest.mark.parametrize("name", ["match", "match-worker"])
def test_pods_are_spread_over_zones_and_nodes(rendered: Rendered, name: str) -> None:
    spec = one(rendered[PROD], "Deployment", name)["spec"]["template"]["spec"]

    keys = [spread["topologyKey"] for spread in spec["topologySpreadConstraints"]]

    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_a_changed_setting_rolls_the_pods(rendered: Rendered) -> None:
    names = {thing["metadata"]["name"] for thing in of_kind(rendered[PROD], "ConfigMap")}

    assert all(name.startswith("match-") and len(name) > len("match-") for name in names)


def test_no_overlay_contains_a_secret(rendered: Rendered) -> None:
    assert [named(thing) for thing in distinct(rendered) if thing["kind"] == "Secret"] == []


def secret_of_a_trial() -> dict[str, str]:
    """Return the values of the Secret `match` that the README creates for the overlay dev."""
    trial = (MANIFESTS / "README.md").read_text().partition("create secret generic match -n match")[2]
    command = trial.partition("\nkubectl ")[0]
    return {
        key: Template(value.strip('"')).substitute(redis=REDIS_PASSWORD, elastic=ELASTIC_PASSWORD)
        for key, value in re.findall(r"--from-literal=([\w.-]+)=(\S+)", command)
    }


def test_documented_secret_of_dev_has_what_its_pods_read(rendered: Rendered) -> None:
    metadata = {"name": "match"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": secret_of_a_trial()}
    objects = [*rendered[Combination("dev", ("keda",))], secret]

    assert missing_keys(objects) == []
    assert [fault for fault in unread_keys(objects) if fault.startswith("Secret")] == []


def test_documented_patch_has_keys_that_pods_read() -> None:
    page = (MANIFESTS.parent / "docs" / "migrating-from-dsys-match.md").read_text()
    [patch] = re.findall(r"kubectl patch secret match -n match --patch '(.+)'", page)

    assert set(json.loads(patch)["stringData"]) <= set(secret_of_a_trial()) | {"elasticsearch.index"}


def test_dev_uses_its_own_redis_and_elasticsearch(rendered: Rendered) -> None:
    services = [
        (service["metadata"]["name"], service["spec"]["ports"]) for service in of_kind(rendered[DEV], "Service")
    ]

    secret = secret_of_a_trial()
    urls = [urlsplit(secret[key]) for key in ("redis.url", "elasticsearch.url")]
    addresses = {f"{url.hostname}:{url.port}" for url in urls} | {secret["redis.address"]}

    assert addresses == {"redis:6379", "elasticsearch:9200"}
    assert addresses <= {f"{name}:{port['port']}" for name, ports in services for port in ports}
    assert [(url.username, url.password) for url in urls] == [
        ("default", secret["redis.password"]),
        ("elastic", secret["elasticsearch.password"]),
    ]


def container_of_dev(rendered: Rendered, name: str) -> Object:
    (container,) = one(rendered[DEV], "StatefulSet", name)["spec"]["template"]["spec"]["containers"]
    return container


def key_of(container: Object, variable: str) -> str:
    """Return the key of the Secret `match` that a variable of a container has."""
    (source,) = (entry["valueFrom"]["secretKeyRef"] for entry in container["env"] if entry["name"] == variable)
    assert source["name"] == "match"
    return str(source["key"])


def test_redis_of_dev_asks_for_its_password(rendered: Rendered, tmp_path: Path) -> None:
    """Run its command with the Redis of this machine."""
    container, secret = container_of_dev(rendered, "redis"), secret_of_a_trial()
    command, password = [*container["command"], *container["args"]], secret[key_of(container, "REDISCLI_AUTH")]

    with running_redis(command, password=password, folder=tmp_path) as at:
        durable = read_appendonly(at, password=REDIS_PASSWORD)

    assert durable == {"appendonly": "yes"}


def test_elasticsearch_of_dev_asks_for_its_password(rendered: Rendered, tmp_path: Path) -> None:
    """Run its probe with a curl that shows what it gets."""
    container, secret = container_of_dev(rendered, "elasticsearch"), secret_of_a_trial()
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\necho "arguments: $*"\ncat\n')
    curl.chmod(0o755)
    variables = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "ELASTIC_PASSWORD": secret[key_of(container, "ELASTIC_PASSWORD")],
    }

    command = container["readinessProbe"]["exec"]["command"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)

    arguments, standard_input = done.stdout.splitlines()
    assert standard_input == f"user = elastic:{ELASTIC_PASSWORD}"
    assert ELASTIC_PASSWORD not in arguments
    assert {"name": "xpack.security.enabled", "value": "true"} in container["env"]


def test_redis_of_dev_is_durable_and_evicts_nothing(rendered: Rendered) -> None:
    container = container_of_dev(rendered, "redis")

    options = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))

    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")


def test_a_broken_kustomization_is_rejected(tmp_path: Path, require: Callable[..., Any]) -> None:
    broken = shutil.copytree(MANIFESTS, tmp_path / "k8s")
    (broken / "base" / "worker.yaml").unlink()

    with pytest.raises(RenderFailed):
        require(lambda: render(Combination("dev"), manifests=broken))
