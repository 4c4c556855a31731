"""Which ways network policies leave open, as Kubernetes reads them."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from checks.objects import Object, Pod, of_kind, selects

NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a way: pods of a namespace, ours unless it has a name, or an address outside the cluster.

    `marks` are the labels of the namespace.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    address: str | None = None
    marks: Mapping[str, str] = field(default_factory=dict)


def may_send(objects: Sequence[Object], pod: Pod, to: Peer, port: int, *, protocol: str = "TCP") -> bool:
    """Say whether the policies let the pod open a connection; one that none speaks of may open any."""
    return _open(objects, pod, "Egress", "to", to, (port, protocol), {})


def may_receive(objects: Sequence[Object], pod: Pod, peer: Peer, port: int, *, protocol: str = "TCP") -> bool:
    """Say whether the policies let the pod be reached; one that none speaks of may be reached by all."""
    return _open(objects, pod, "Ingress", "from", peer, (port, protocol), pod.ports)


def between(objects: Sequence[Object], source: Pod, target: Pod, port: int) -> bool:
    """Say whether two pods of ours can talk: the one may send, the other may receive."""
    leaving = _open(objects, source, "Egress", "to", Peer(target.labels), (port, "TCP"), target.ports)
    return leaving and may_receive(objects, target, Peer(source.labels), port)


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
    return not policies or any(_admits(rule, end, peer, port, names) for rule in rules)


def _policies(objects: Iterable[Object], pod: Pod, direction: str) -> Iterator[Object]:
    for policy in of_kind(objects, "NetworkPolicy"):
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod.labels):
            yield policy


def _admits(rule: Mapping[str, Any], end: str, peer: Peer, port: tuple[int, str], names: Mapping[str, int]) -> bool:
    number, protocol = port
    ports = [
        (names.get(entry["port"], 0) if isinstance(entry["port"], str) else entry["port"], entry.get("protocol", "TCP"))
        for entry in rule.get("ports", [])
    ]
    return (not ports or (number, protocol) in ports) and (
        not rule.get(end) or any(_is(found, peer) for found in rule[end])
    )


def _is(found: Mapping[str, Any], peer: Peer) -> bool:
    if "ipBlock" in found:
        block = found["ipBlock"]
        return (
            peer.address is not None
            and _inside(peer.address, block["cidr"])
            and not any(_inside(peer.address, network) for network in block.get("except", []))
        )
    if peer.address is not None:
        return False
    if "namespaceSelector" in found:
        here = {NAME: peer.namespace or "ours", **peer.marks}
        return selects(found["namespaceSelector"], here) and selects(found.get("podSelector", {}), peer.labels)
    return peer.namespace is None and selects(found.get("podSelector"), peer.labels)


def _inside(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)
