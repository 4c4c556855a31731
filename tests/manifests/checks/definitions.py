"""Custom resources against the schemas of their definitions, as an API server with strict validation."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from checks.objects import Object
from checks.tools import ECK, GATEWAY, KEDA, PROMETHEUS, fetch

# By API group: the Go module with its definitions, and their files.
DEFINITIONS = {
    "keda.sh": (KEDA, "config/crd/bases/*.yaml"),
    "elasticsearch.k8s.elastic.co": (ECK, "config/crds/v1/resources/elasticsearch*.yaml"),
    "gateway.networking.k8s.io": (GATEWAY, "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    "monitoring.coreos.com": (PROMETHEUS, "example/prometheus-operator-crd/monitoring.coreos.com_*monitors.yaml"),
}


def is_custom(thing: Object) -> bool:
    """Return whether the kind is a custom resource."""
    return _group(thing) in DEFINITIONS


def wrong_fields(thing: Object) -> list[str]:
    """Return one line for each violation of its definition. Raises MissingTool."""
    schema = _schemas(_group(thing)).get((thing["apiVersion"], thing["kind"]))
    if schema is None:
        return [f"{thing['kind']}: unknown kind in {thing['apiVersion']}"]
    errors = Draft202012Validator(schema).iter_errors(thing)
    return [f"{error.json_path}: {error.message}" for error in errors]


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI schema of Kubernetes as a JSON Schema that allows no other fields."""
    converted = {
        key: value for key, value in schema.items() if not key.startswith("x-") and key not in {"format", "nullable"}
    }
    for key in ("properties", "additionalProperties", "items", "not"):
        if isinstance(converted.get(key), Mapping):
            inner = converted[key]
            converted[key] = (
                {name: strict(field) for name, field in inner.items()} if key == "properties" else strict(inner)
            )
    if "properties" in converted and not schema.get("x-kubernetes-preserve-unknown-fields"):
        converted.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        converted.pop("type", None)
    if schema.get("nullable") and "type" in converted:
        converted["type"] = [converted["type"], "null"]
    return converted


def _group(thing: Object) -> str:
    group, slash, _ = thing["apiVersion"].partition("/")
    return group if slash else ""


@cache
def _schemas(group: str) -> dict[tuple[str, str], dict[str, Any]]:
    module, pattern = DEFINITIONS[group]
    return {key: schema for file in sorted(fetch(module).glob(pattern)) for key, schema in _read(file)}


def _read(file: Path) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    spec = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)["spec"]
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
        yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema
