"""Every overlay, with every component: schemas, Pod Security, a linter and the rules that only Match has."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from checks.definitions import is_custom, wrong_fields
from checks.objects import Object, named, of_kind, one
from checks.render import MANIFESTS, Combination, Refused, combinations, overlays, render
from checks.rules import RULES, Rule, keys_of_secrets, keys_that_nobody_reads
from checks.tools import KUBE_SCORE, POD_SECURITY, build
from common.queue.keys import OPEN

# The oldest with all that is used, one in between, and the newest whose schemas there are.
VERSIONS = ("1.31", "1.34", "1.37")
COMBINATIONS = list(combinations())
# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)

Rendered = Mapping[Combination, Sequence[Object]]

# What kube-score asks for and we have decided otherwise, and of what.
EXCEPTIONS = {
    # A pod may use what others leave: a limit would slow it down beside idle cores.
    "container-resources": lambda comment: comment == "CPU limit is not set",
    # A tag is never given to another build, and a node that has the image starts it without a registry.
    "container-image-pull-policy": lambda _comment: True,
    # Pods are spread by topologySpreadConstraints.
    "deployment-has-host-podantiaffinity": lambda _comment: True,
}
EXCEPTIONS_OF = {
    # One is enough, and two would each show what it has seen.
    ("Deployment match-flower", "deployment-replicas"),
    ("Deployment match-flower", "deployment-strategy"),
    # Without an autoscaler, as where one tries it, there is one.
    ("Deployment match", "deployment-replicas"),
    # Their images' own users.
    ("StatefulSet redis", "container-security-context-user-group-id"),
    ("StatefulSet elasticsearch", "container-security-context-user-group-id"),
    # Its image writes into its own folders when it starts.
    ("StatefulSet elasticsearch", "container-security-context-readonlyrootfilesystem"),
    # Its pods are made by an operator.
    ("NetworkPolicy match-eck", "networkpolicy-targets-pod"),
}
CRITICAL_AND_WARNING = 5


def distinct(rendered: Rendered) -> list[Object]:
    return list(
        {json.dumps(thing, sort_keys=True): thing for objects in rendered.values() for thing in objects}.values()
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_overlay_keeps_every_rule(rendered: Rendered, rule: Rule) -> None:
    faults = [f"{combination}: {fault}" for combination, objects in rendered.items() for fault in rule(objects)]

    assert faults == []


@pytest.mark.parametrize("overlay", overlays())
def test_each_key_of_an_overlay_is_read_with_some_component(rendered: Rendered, overlay: str) -> None:
    unread = [
        set(keys_that_nobody_reads(objects))
        for combination, objects in rendered.items()
        if combination.overlay == overlay
    ]

    assert set.intersection(*unread) == set()


def test_each_key_of_a_secret_that_is_read_is_in_the_readme_and_no_other(rendered: Rendered) -> None:
    read = set.union(*(keys_of_secrets(objects) for objects in rendered.values()))

    table = (MANIFESTS / "README.md").read_text().partition("| Secret | key |")[2].partition("\n\n")[0]
    told = set()
    name = ""
    for secret, keys in re.findall(r"^\| (?:`([\w-]+)`)? ?\| ([^|]*)\|", table, flags=re.MULTILINE):
        name = secret or name
        told |= {(name, key) for key in re.findall(r"`([\w.-]+)`", keys)}
    assert read == told


@pytest.mark.parametrize("version", VERSIONS)
def test_an_api_server_of_this_version_would_take_every_object(rendered: Rendered, version: str) -> None:
    for thing in distinct(rendered):
        if not is_custom(thing):
            kubernetes_validate.validate(thing, version, strict=True)


def test_operators_would_take_what_is_theirs(rendered: Rendered, needed: Callable[..., Any]) -> None:
    theirs = [thing for thing in distinct(rendered) if is_custom(thing)]

    faults = [f"{named(thing)}: {wrong}" for thing in theirs for wrong in needed(wrong_fields, thing)]

    kinds = {"ScaledObject", "Elasticsearch", "HTTPRoute", "ServiceMonitor", "PodMonitor"}
    assert {thing["kind"] for thing in theirs} >= kinds
    assert faults == []


def test_a_linter_finds_nothing_but_what_was_decided(
    rendered: Rendered, needed: Callable[..., Any], tmp_path: Path
) -> None:
    program = needed(build, KUBE_SCORE)
    everything = tmp_path / "all.yaml"

    found = set()
    for objects in rendered.values():
        everything.write_text(yaml.dump_all(objects))
        found |= complaints(program, everything)

    assert found - EXCEPTIONS_OF == set()
    assert EXCEPTIONS_OF - found == set(), "exceptions that nothing needs any more"


def complaints(program: Path, file: Path) -> set[tuple[str, str]]:
    command = [program, "score", "--output-format", "json", "--kubernetes-version", f"v{VERSIONS[-2]}"]
    command += ["--enable-optional-test", "container-seccomp-profile", file]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return {
        (f"{thing['type_meta']['kind']} {thing['object_meta']['name']}", check["check"]["id"])
        for thing in said
        for check in thing["checks"]
        if not check["skipped"] and check["grade"] <= CRITICAL_AND_WARNING
        for comment in check["comments"] or [{"summary": ""}]
        if not EXCEPTIONS.get(check["check"]["id"], lambda _comment: False)(comment["summary"])
    }


def test_every_pod_meets_the_restricted_standard(
    rendered: Rendered, needed: Callable[..., Any], tmp_path: Path
) -> None:
    assert refused_pods(needed(build, POD_SECURITY), distinct(rendered), tmp_path) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot != true"),
        ({"hostNetwork": True}, "host namespaces"),
        ({"volumes": [{"name": "logs", "hostPath": {"path": "/var"}}]}, "restricted volume types"),
    ],
)
def test_a_pod_below_the_standard_is_found(
    rendered: Rendered, needed: Callable[..., Any], tmp_path: Path, change: Mapping[str, Any], reason: str
) -> None:
    flower = deepcopy(one(rendered[Combination("prod")], "Deployment", "match-flower"))
    flower["spec"]["template"]["spec"] |= change

    assert reason in refused_pods(needed(build, POD_SECURITY), [flower], tmp_path)


def refused_pods(program: Path, objects: Sequence[Object], folder: Path) -> str:
    """Return a line for each workload whose pods Kubernetes would refuse."""
    file = folder / "workloads"
    kinds = ("Deployment", "StatefulSet", "Job")
    file.write_text("\n".join(json.dumps(thing) for thing in of_kind(objects, *kinds)))
    return subprocess.run([program, file], capture_output=True, text=True, check=True).stdout


def test_what_dsys_match_called_it_still_works(rendered: Rendered) -> None:
    objects = rendered[Combination("prod")]

    service = one(objects, "Service", "match")
    api = one(objects, "Deployment", "match")
    (container,) = (one for one in api["spec"]["template"]["spec"]["containers"] if one["name"] == "api")
    read = {
        variable["name"]: (variable["valueFrom"]["secretKeyRef"]["name"], variable["valueFrom"]["secretKeyRef"]["key"])
        for variable in container["env"]
        if "valueFrom" in variable
    }

    assert service["spec"]["ports"][0]["port"] == 80
    assert read["ELASTICSEARCH_URL"] == ("match", "elasticsearch.url")
    assert read["ELASTICSEARCH_INDEX"] == ("match", "elasticsearch.index")
    assert read["ELASTICSEARCH_DOC_TYPE"] == ("match", "elasticsearch.doc-type")


def test_workers_are_scaled_by_the_ledgers_open_tasks(rendered: Rendered) -> None:
    (scaler,) = of_kind(rendered[Combination("prod")], "ScaledObject")
    (trigger,) = scaler["spec"]["triggers"]

    assert (trigger["type"], trigger["metadata"]["listName"]) == ("redis", OPEN)
    # Without a worker nobody would send again what was lost.
    assert scaler["spec"]["minReplicaCount"] >= 1


@pytest.mark.parametrize("name", ["match", "match-worker"])
def test_a_rollout_takes_no_pod_away_before_another_is_ready(rendered: Rendered, name: str) -> None:
    strategy = one(rendered[Combination("prod")], "Deployment", name)["spec"]["strategy"]["rollingUpdate"]

    assert (strategy["maxSurge"], strategy["maxUnavailable"]) == (1, 0)


@pytest.mark.parametrize("name", ["match", "match-worker"])
def test_pods_are_spread_over_zones_and_nodes(rendered: Rendered, name: str) -> None:
    spec = one(rendered[Combination("prod")], "Deployment", name)["spec"]["template"]["spec"]

    keys = [spread["topologyKey"] for spread in spec["topologySpreadConstraints"]]

    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_a_change_of_a_setting_rolls_the_pods(rendered: Rendered) -> None:
    names = {thing["metadata"]["name"] for thing in of_kind(rendered[Combination("prod")], "ConfigMap")}

    assert all(name.startswith("match-") and len(name) > len("match-") for name in names)


def test_no_overlay_brings_a_password(rendered: Rendered) -> None:
    secrets = [thing for thing in distinct(rendered) if thing["kind"] == "Secret"]

    assert [
        text for thing in secrets for text in thing["stringData"].values() if "@" in text or "password" in text
    ] == []


def test_what_one_tries_it_with_finds_its_redis_and_its_elasticsearch(rendered: Rendered) -> None:
    objects = rendered[Combination("dev")]
    services = [(found["metadata"]["name"], found["spec"]["ports"]) for found in of_kind(objects, "Service")]

    said = one(objects, "Secret", "match")["stringData"]
    named = {urlsplit(said[key]).netloc for key in ("redis.url", "elasticsearch.url")} | {said["redis.address"]}

    assert named == {"redis:6379", "elasticsearch:9200"}
    assert named <= {f"{name}:{port['port']}" for name, ports in services for port in ports}


def test_the_redis_that_one_tries_it_with_keeps_what_it_is_told(rendered: Rendered) -> None:
    redis = one(rendered[Combination("dev")], "StatefulSet", "redis")
    (container,) = redis["spec"]["template"]["spec"]["containers"]

    options = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))

    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")


def test_a_broken_kustomization_is_refused(tmp_path: Path, needed: Callable[..., Any]) -> None:
    broken = shutil.copytree(MANIFESTS, tmp_path / "k8s")
    (broken / "base" / "worker.yaml").unlink()

    with pytest.raises(Refused):
        needed(lambda: render(Combination("dev"), manifests=broken))
