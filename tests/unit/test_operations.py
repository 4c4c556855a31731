"""The operator's pages: the things that they name exist, and their commands can be parsed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.routes import ENDPOINTS
from common.config import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("install", "operations", "backup", "runbook", "platforms")
GUIDE = "".join((ROOT / "docs" / f"{page}.md").read_text() for page in PAGES)
MAKEFILE = (ROOT / "Makefile").read_text()
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```", GUIDE, flags=re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
# The code of the pages, in blocks and in lines.
CODE = "\n".join([*SHELL, *re.findall(r"`([^`\n]+)`", GUIDE)])
# Variables of the stack, of compose and of the command line that are not settings of the service.
OTHER_VARIABLES = {"ELASTICSEARCH_IMAGE", "FLOWER_BASIC_AUTH", "FLOWER_PORT", "MATCH_API_KEY", "MATCH_URL"}

# Elastic's operator makes it for the Elasticsearch of k8s/components/eck.
BY_OPERATORS = {("service", "match-es-http")}

BASH = shutil.which("bash") or "bash"


def manifests() -> Iterator[tuple[str, str]]:
    for path in (ROOT / "k8s").rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            if document and document.get("kind") not in {None, "Component", "Kustomization"}:
                yield document["kind"].lower(), document["metadata"]["name"]


def test_every_make_target_that_is_named_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z0-9][a-z0-9-]*)", CODE))

    assert {"dev", "reindex"} <= named
    assert named - set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, flags=re.MULTILINE)) == set()


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"\b((?:MATCH|ELASTICSEARCH|FLOWER)_[A-Z0-9_]+|REDIS_URL|WORKER_COUNT)\b", GUIDE))

    assert len(named) > 10
    assert named - {spec.metadata["name"] for spec in fields(Settings)} - OTHER_VARIABLES == set()


def test_every_endpoint_that_is_named_exists() -> None:
    named = set(re.findall(r"(?:\$MATCH|127\.0\.0\.1:8888|(?:GET|POST) )(/[a-z./]+)", GUIDE))
    named |= set(re.findall(r"`(/[a-z]+)[`?]", GUIDE))

    existing = {re.sub("<[a-z]+>", "", endpoint.path) for endpoint in ENDPOINTS}

    assert len(named) > 8
    assert named - existing == set()


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"\b((?:k8s|observability|tests|examples|docs)/[\w./-]+[\w/])", CODE))
    named |= set(re.findall(r"\b(Dockerfile\.\w+|docker-compose\.yml)", CODE))

    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_named_command_exists() -> None:
    named = set(re.findall(r"python -m ([\w.]+)", CODE))

    assert {"api", "workers", "api.new_key", "common.store.reindex"} <= named
    assert [name for name in named if find_spec(name) is None] == []


def test_every_object_of_the_cluster_that_is_named_exists() -> None:
    kinds = "deployment|service|job|scaledobject"
    named = set(re.findall(rf"\b({kinds})/(match[\w-]*)", CODE))

    assert len(named) > 4
    assert named - set(manifests()) - BY_OPERATORS == set()


def test_every_service_of_compose_that_is_named_exists() -> None:
    services = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
    named = re.findall(r"docker compose (?:stop|start|logs|ps|exec) ([a-z0-9 -]+)", CODE)

    words = {word for words in named for word in words.split() if not word.startswith("-")}
    assert words - {"curl", "redis-cli"} <= services
    assert set(re.findall(r"--scale (\w+)=", CODE)) <= services


@pytest.mark.parametrize("name", [".env", "match.env", "keys.toml", "docker-compose.override.yml"])
def test_files_of_operators_are_ignored_by_git(name: str) -> None:
    assert name in GUIDE
    assert f"/{name}" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("script", SHELL)
def test_every_command_can_be_read_by_a_shell(script: str) -> None:
    done = subprocess.run([BASH, "-n"], input=script, check=False, capture_output=True, text=True)

    assert done.stderr == ""


@pytest.mark.parametrize("body", re.findall(r" -d '([^']+)'", GUIDE))
def test_every_body_is_json(body: str) -> None:
    assert isinstance(json.loads(body), dict)


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "yaml"])
def test_every_piece_of_yaml_can_be_read(text: str) -> None:
    documents = [*yaml.safe_load_all(text)]

    assert documents
    assert all(isinstance(document, dict) for document in documents)


@pytest.mark.parametrize("name", ["recording", "alerts"])
def test_the_rules_become_objects_of_the_prometheus_operator(name: str) -> None:
    loop = next(script for script in SHELL if "PrometheusRule" in script)
    head = re.search(r"printf '([^']+)' \$rules", loop)
    assert head is not None
    top = head[1].replace("\\n", "\n") % name
    rules = (ROOT / "observability" / "prometheus" / f"{name}.yml").read_text()

    made: dict[str, Any] = yaml.safe_load(top + re.sub("^", "  ", rules, flags=re.MULTILINE))

    assert (made["kind"], made["metadata"]) == ("PrometheusRule", {"name": f"match-{name}"})
    assert made["spec"] == yaml.safe_load(rules)
