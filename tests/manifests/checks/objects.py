"""Rendered objects, and the pods that they create."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

ECK = "elasticsearch.k8s.elastic.co"
# Secrets that the operator creates for an Elasticsearch object, with their keys.
ECK_SECRETS = {"es-elastic-user": {"elastic"}, "es-http-certs-public": {"ca.crt", "tls.crt"}}


@dataclass(frozen=True, slots=True)
class Pod:
    """Pods of one workload: its name, their labels and specification, and their ports by name and by number."""

    owner: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    ports: Mapping[str, int]
    numbers: frozenset[int]

    @property
    def component(self) -> str:
        """The component of Match."""
        return self.labels.get("app.kubernetes.io/component", "")

    @property
    def containers(self) -> list[Object]:
        """All containers, including init containers."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]

    def has_port(self, port: str | int) -> bool:
        """Return whether a container has this port."""
        return port in (self.ports if isinstance(port, str) else self.numbers)


def named(thing: Object) -> str:
    """Return kind and name for a message."""
    return f"{thing['kind']} {thing['metadata']['name']}"


def of_kind(objects: Iterable[Object], *kinds: str) -> Iterator[Object]:
    """Return the objects of some kinds."""
    return (thing for thing in objects if thing["kind"] in kinds)


def one(objects: Iterable[Object], kind: str, name: str) -> Object:
    """Return the object of this kind and name."""
    (thing,) = (thing for thing in of_kind(objects, kind) if thing["metadata"]["name"] == name)
    return thing


def pods(objects: Iterable[Object]) -> list[Pod]:
    """Return the pods that these objects create, one for each workload."""
    created = []
    for thing in objects:
        if thing["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            template = thing["spec"]["template"]
            created.append(_pod(named(thing), template["metadata"].get("labels", {}), template["spec"]))
        elif thing["apiVersion"].startswith(f"{ECK}/"):
            name = thing["metadata"]["name"]
            labels = {f"{ECK}/cluster-name": name, "common.k8s.elastic.co/type": "elasticsearch"}
            ports = {"https": 9200, "transport": 9300}
            created.append(Pod(named(thing), labels, {}, ports, frozenset(ports.values())))
    return created


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches; an empty one matches all labels, None matches none."""
    if selector is None:
        return False
    required = selector.get("matchLabels", {}).items()
    return required <= labels.items() and all(_matches(rule, labels) for rule in selector.get("matchExpressions", []))


def selected(selector: Mapping[str, Any] | None, candidates: Iterable[Pod]) -> list[Pod]:
    """Return the pods that a label selector matches."""
    return [pod for pod in candidates if selects(selector, pod.labels)]


def _matches(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    exists = rule["key"] in labels
    is_in = exists and labels[rule["key"]] in rule.get("values", [])
    return {"In": is_in, "NotIn": not is_in, "Exists": exists, "DoesNotExist": not exists}[rule["operator"]]


def _pod(owner: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> Pod:
    ports = [port for container in spec["containers"] for port in container.get("ports", [])]
    names = {port["name"]: port["containerPort"] for port in ports if "name" in port}
    return Pod(owner, labels, spec, names, frozenset(port["containerPort"] for port in ports))
