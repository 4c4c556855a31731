"""Connections that network policies allow, by the semantics of Kubernetes."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from checks.objects import Object, Pod, of_kind, selects

NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: pods, or an address outside the cluster.

    Without a name the namespace is that of Match; `namespace_labels` are its labels.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    address: str | None = None
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def may_send(objects: Sequence[Object], pod: Pod, to: Peer, port: int, *, protocol: str = "TCP") -> bool:
    """Return whether the pod may open a connection; a pod that no policy selects may open any."""
    return _open(objects, pod, "Egress", "to", to, (port, protocol), {})


def may_receive(objects: Sequence[Object], pod: Pod, peer: Peer, port: int, *, protocol: str = "TCP") -> bool:
    """Return whether the pod may be reached; a pod that no policy selects is open to all."""
    return _open(objects, pod, "Ingress", "from", peer, (port, protocol), pod.ports)


def between(objects: Sequence[Object], source: Pod, target: Pod, port: int) -> bool:
    """Return whether a pod of Match may connect to another: the one may send, the other may receive."""
    sends = _open(objects, source, "Egress", "to", Peer(target.labels), (port, "TCP"), target.ports)
    return sends and may_receive(objects, target, Peer(source.labels), port)


def _open(
    objects: Iterable[Object],
    pod: Pod,
    direction: str,
    end: str,
    peer: Peer,
    port: tuple[int, str],
    names: Mapping[str, int],
) -> bool:
    policies = list(_policies(objects, pod, direction))
    rules = [rule for policy in policies for rule in policy["spec"].get(direction.lower(), [])]
    return not policies or any(_allows(rule, end, peer, port, names) for rule in rules)


def _policies(objects: Iterable[Object], pod: Pod, direction: str) -> Iterator[Object]:
    for policy in of_kind(objects, "NetworkPolicy"):
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod.labels):
            yield policy


def _allows(rule: Mapping[str, Any], end: str, peer: Peer, port: tuple[int, str], names: Mapping[str, int]) -> bool:
    number, protocol = port
    ports = [
        (names.get(entry["port"], 0) if isinstance(entry["port"], str) else entry["port"], entry.get("protocol", "TCP"))
        for entry in rule.get("ports", [])
    ]
    return (not ports or (number, protocol) in ports) and (
        not rule.get(end) or any(_selects_peer(selector, peer) for selector in rule[end])
    )


def _selects_peer(selector: Mapping[str, Any], peer: Peer) -> bool:
    if "ipBlock" in selector:
        block = selector["ipBlock"]
        return (
            peer.address is not None
            and _inside(peer.address, block["cidr"])
            and not any(_inside(peer.address, network) for network in block.get("except", []))
        )
    if peer.address is not None:
        return False
    if "namespaceSelector" in selector:
        namespace_labels = {NAME: peer.namespace or "match", **peer.namespace_labels}
        return selects(selector["namespaceSelector"], namespace_labels) and selects(
            selector.get("podSelector", {}), peer.labels
        )
    return peer.namespace is None and selects(selector.get("podSelector"), peer.labels)


def _inside(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)
