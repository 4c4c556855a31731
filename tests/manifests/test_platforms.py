"""docs/platforms.md: the YAML of each guide, added to the example of an overlay, has its effect."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from markdown_it import MarkdownIt

from checks.example import render_example
from checks.network import Peer, may_send
from checks.objects import Object, Pod, one, pods
from checks.render import ROOT
from checks.rules import RULES

# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)
# The certificates that an operator copies beside the kustomization.
CERTIFICATES = {"ca.crt": "the company's\n", "ca-bundle.crt": "all\n"}
SERVICE = ("api", "worker", "prepare")


@cache
def guides() -> Mapping[str, Mapping[str, str]]:
    """Return the files of each guide: blocks whose first line is `# guide` or `# guide: file`."""
    files: dict[str, dict[str, str]] = {}
    for token in MarkdownIt("commonmark").parse((ROOT / "docs" / "platforms.md").read_text()):
        first, _, text = token.content.partition("\n")
        if token.type == "fence" and token.info == "yaml" and first.startswith("# "):
            guide, _, name = first.removeprefix("# ").partition(": ")
            files.setdefault(guide, {})[name or "kustomization.yaml"] = text
    return files


Follow = Callable[[str], Sequence[Object]]


@pytest.fixture(scope="module")
def follow(manifests_url: str, tmp_path_factory: pytest.TempPathFactory, require: Callable[..., Any]) -> Follow:
    """Follow a guide, once: render the example with its files."""

    @cache
    def follow(guide: str) -> Sequence[Object]:
        folder = tmp_path_factory.mktemp("guide") / guide
        files = {**guides()[guide], **CERTIFICATES}
        objects: list[Object] = require(lambda: render_example(folder, url=manifests_url, files=files))
        return objects

    return follow


def pod(objects: Sequence[Object], component: str) -> Pod:
    (pod,) = (pod for pod in pods(objects) if pod.component == component)
    return pod


@pytest.mark.parametrize("guide", ["argo-cd", "flux", "elastic-cloud", "private-ca", "openshift"])
def test_every_guide_keeps_every_rule(guide: str, follow: Follow) -> None:
    objects = follow(guide)

    assert [fault for rule in RULES for fault in rule(objects)] == []


def test_argo_cd_prepares_the_index_before_the_deployments(follow: Follow) -> None:
    objects = follow("argo-cd")

    job = one(objects, "Job", "match-prepare")
    waves = {
        thing["kind"]: int(thing["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))
        for thing in objects
    }
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "Sync"
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    assert [waves[kind] for kind in ("ConfigMap", "NetworkPolicy", "Job", "Deployment")] == [0, 0, 1, 2]


def test_flux_replaces_the_job_and_keeps_it(follow: Follow) -> None:
    job = one(follow("flux"), "Job", "match-prepare")

    assert job["metadata"]["annotations"] == {"kustomize.toolkit.fluxcd.io/force": "enabled"}
    assert "ttlSecondsAfterFinished" not in job["spec"]


def test_every_pod_reaches_elastic_cloud(follow: Follow) -> None:
    objects = follow("elastic-cloud")

    cloud = Peer(address="93.184.215.14")
    assert [name for name in SERVICE if not may_send(objects, pod(objects, name), cloud, 443)] == []
    assert not may_send(objects, pod(objects, "prepare"), Peer(address="10.20.0.20"), 9200)


def test_pods_mount_the_private_ca(follow: Follow) -> None:
    objects = follow("private-ca")

    for name in SERVICE:
        [container] = [one for one in pod(objects, name).containers if one["name"] == name]
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert environment["MATCH_ELASTICSEARCH_CA_FILE"] == "/etc/match/ca/ca.crt"
        assert environment["SSL_CERT_FILE"] == "/etc/match/ca/ca-bundle.crt"
        assert {"name": "ca", "mountPath": "/etc/match/ca", "readOnly": True} in container["volumeMounts"]
        [volume] = [volume for volume in pod(objects, name).spec["volumes"] if volume["name"] == "ca"]
        assert volume["configMap"]["name"].startswith("match-ca-")


def test_openshift_chooses_the_user_and_is_asked_for_names(follow: Follow) -> None:
    objects = follow("openshift")

    dns = Peer({"dns.operator.openshift.io/daemonset-dns": "default"}, namespace="openshift-dns")
    for name in (*SERVICE, "flower"):
        assert {"runAsUser", "runAsGroup"}.isdisjoint(pod(objects, name).spec["securityContext"])
        assert pod(objects, name).spec["securityContext"]["runAsNonRoot"]
        assert may_send(objects, pod(objects, name), dns, 5353, protocol="UDP")
