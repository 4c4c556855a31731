"""Rendered objects, as the rules look at them: dictionaries, and the pods that come of them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

ECK = "elasticsearch.k8s.elastic.co"
# Who makes them, of an Elasticsearch object: no manifest has them.
ECK_SECRETS = {"es-elastic-user": {"elastic"}, "es-http-certs-public": {"ca.crt", "tls.crt"}}


@dataclass(frozen=True, slots=True)
class Pod:
    """Pods of one kind: who makes them, their labels, what a manifest says of them, the ports that they listen on."""

    owner: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    ports: Mapping[str, int]
    numbers: frozenset[int]

    @property
    def component(self) -> str:
        """Which of our components it is."""
        return self.labels.get("app.kubernetes.io/component", "")

    @property
    def containers(self) -> list[Object]:
        """All of them, those that only start it included."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]

    def has_port(self, port: str | int) -> bool:
        """Say whether a container listens on it."""
        return port in (self.ports if isinstance(port, str) else self.numbers)


def named(thing: Object) -> str:
    """Return kind and name, for a line about it."""
    return f"{thing['kind']} {thing['metadata']['name']}"


def of_kind(objects: Iterable[Object], *kinds: str) -> Iterator[Object]:
    """Return the objects of some kinds."""
    return (thing for thing in objects if thing["kind"] in kinds)


def one(objects: Iterable[Object], kind: str, name: str) -> Object:
    """Return the object of this kind and name."""
    (found,) = (thing for thing in of_kind(objects, kind) if thing["metadata"]["name"] == name)
    return found


def pods(objects: Iterable[Object]) -> list[Pod]:
    """Return the pods that these objects make, one for each that makes some."""
    found = []
    for thing in objects:
        if thing["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            template = thing["spec"]["template"]
            found.append(_pod(named(thing), template["metadata"].get("labels", {}), template["spec"]))
        elif thing["apiVersion"].startswith(f"{ECK}/"):
            name = thing["metadata"]["name"]
            labels = {f"{ECK}/cluster-name": name, "common.k8s.elastic.co/type": "elasticsearch"}
            ports = {"https": 9200, "transport": 9300}
            found.append(Pod(named(thing), labels, {}, ports, frozenset(ports.values())))
    return found


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Say whether a label selector fits; an empty one fits all, none at all fits nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels", {}).items()
    return wanted <= labels.items() and all(_fits(rule, labels) for rule in selector.get("matchExpressions", []))


def selected(selector: Mapping[str, Any] | None, among: Iterable[Pod]) -> list[Pod]:
    """Return the pods that a label selector fits."""
    return [pod for pod in among if selects(selector, pod.labels)]


def _fits(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    has = rule["key"] in labels
    among = has and labels[rule["key"]] in rule.get("values", [])
    return {"In": among, "NotIn": not among, "Exists": has, "DoesNotExist": not has}[rule["operator"]]


def _pod(owner: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> Pod:
    ports = [port for container in spec["containers"] for port in container.get("ports", [])]
    names = {port["name"]: port["containerPort"] for port in ports if "name" in port}
    return Pod(owner, labels, spec, names, frozenset(port["containerPort"] for port in ports))
