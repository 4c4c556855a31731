"""Custom resources against the schemas of those who define them, as strictly as an API server that is asked to be."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from checks.objects import Object
from checks.tools import ECK, GATEWAY, KEDA, PROMETHEUS, fetch

# Of each group of kinds: the module that defines it, and where in it.
PLACES = {
    "keda.sh": (KEDA, "config/crd/bases/*.yaml"),
    "elasticsearch.k8s.elastic.co": (ECK, "config/crds/v1/resources/elasticsearch*.yaml"),
    "gateway.networking.k8s.io": (GATEWAY, "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    "monitoring.coreos.com": (PROMETHEUS, "example/prometheus-operator-crd/monitoring.coreos.com_*monitors.yaml"),
}


def is_custom(thing: Object) -> bool:
    """Say whether the kind is one that somebody adds to a cluster."""
    return _group(thing) in PLACES


def wrong_fields(thing: Object) -> list[str]:
    """Return what its definition does not allow. Raises MissingTool."""
    schema = _schemas(_group(thing)).get((thing["apiVersion"], thing["kind"]))
    if schema is None:
        return [f"{thing['kind']}: its group has no such kind at {thing['apiVersion']}"]
    errors = Draft202012Validator(schema).iter_errors(thing)
    return [f"{error.json_path}: {error.message}" for error in errors]


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI schema of Kubernetes' as JSON Schema that refuses fields that are not in it."""
    made = {
        key: value for key, value in schema.items() if not key.startswith("x-") and key not in {"format", "nullable"}
    }
    for key in ("properties", "additionalProperties", "items", "not"):
        if isinstance(made.get(key), Mapping):
            inner = made[key]
            made[key] = {name: strict(one) for name, one in inner.items()} if key == "properties" else strict(inner)
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def _group(thing: Object) -> str:
    group, slash, _ = thing["apiVersion"].partition("/")
    return group if slash else ""


@cache
def _schemas(group: str) -> dict[tuple[str, str], dict[str, Any]]:
    module, pattern = PLACES[group]
    return {key: schema for file in sorted(fetch(module).glob(pattern)) for key, schema in _read(file)}


def _read(file: Path) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    spec = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)["spec"]
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
        yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema
