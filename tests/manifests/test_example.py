"""The example of a deployment outside the clone: it renders, and an upgrade changes one ref."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from checks.example import render_example
from checks.network import Peer, may_send
from checks.objects import Object, of_kind, pods
from checks.rules import RULES

# The first run on a machine builds and fetches tools.
pytestmark = pytest.mark.timeout(1200)
IMAGES = {f"registry.example.com/team/match-{name}" for name in ("api", "worker", "flower")}


@pytest.fixture
def example(manifests_url: str, tmp_path: Path, require: Callable[..., Any]) -> Sequence[Object]:
    objects: list[Object] = require(lambda: render_example(tmp_path / "deploy", url=manifests_url))
    return objects


def images(objects: Sequence[Object]) -> set[str]:
    """Return the images of Match: those from the registry of the example."""
    named = {container["image"] for pod in pods(objects) for container in pod.containers}
    return {image for image in named if image.startswith("registry.example.com/")}


def test_the_example_keeps_every_rule(example: Sequence[Object]) -> None:
    settings = [thing["data"] for thing in of_kind(example, "ConfigMap") if "ALL_ORIENTATIONS" in thing["data"]]

    assert {thing["metadata"]["namespace"] for thing in example} == {"match"}
    assert [fault for rule in RULES for fault in rule(example)] == []
    assert [data["MATCH_FETCH_PER_HOST"] for data in settings] == ["4"]


def test_the_example_connects_only_to_its_own_stores(example: Sequence[Object]) -> None:
    reached = {
        (pod.component, address, port)
        for pod in pods(example)
        for address in ("10.20.0.10", "10.20.0.20", "10.20.0.30")
        for port in (6379, 9200)
        if may_send(example, pod, Peer(address=address), port)
    }

    redis = {(component, "10.20.0.10", 6379) for component in ("api", "worker", "flower")}
    elasticsearch = {(component, "10.20.0.20", 9200) for component in ("api", "worker", "prepare")}
    assert reached == redis | elasticsearch


def test_an_upgrade_changes_the_images_by_the_ref(
    example: Sequence[Object], manifests_url: str, tmp_path: Path
) -> None:
    after = render_example(tmp_path / "upgraded", url=manifests_url, version="v0.2.0")

    assert images(after) == {f"{name}:0.2.0" for name in IMAGES}
    assert {image.rpartition(":")[0] for image in images(example)} == IMAGES
    assert images(example).isdisjoint(images(after))


@pytest.mark.parametrize(("overlay", "path"), [("dev", "k8s/overlays/dev"), ("../match-deploy", "../match-deploy")])
def test_a_rollout_applies_the_named_overlay(overlay: str, path: str, make: Callable[..., Any]) -> None:
    printed = make("--dry-run", "k8s-rollout", f"OVERLAY={overlay}").stdout

    assert re.findall(r"apply -k (\S+)", printed) == [path, path]
