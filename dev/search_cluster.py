"""A real cluster of a search server on loopback, whose nodes tests can stop."""

import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from dev.ports import free_port
from dev.search_node import SearchNode

MASTER_HEAP_MIB = 256
DATA_HEAP_MIB = 512
NO_SETTINGS: Mapping[str, str] = {}


class _Nodes:
    """Nodes that form a cluster, deleted at the end of the `with`."""

    def __init__(self, nodes: tuple[SearchNode, ...]) -> None:
        self.nodes = nodes
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            # In parallel: a node waits for the others.
            with ThreadPoolExecutor() as pool:
                list(pool.map(undo.enter_context, self.nodes))
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def start(self) -> None:
        """Start the nodes that were stopped, with their data."""
        for node in self.nodes:
            if not node.running:
                node.start()


class Cluster(_Nodes):
    """A dedicated master node and two data nodes.

    Either data node may die: the master keeps the voting majority.
    """

    def __init__(self, kind: type[SearchNode]) -> None:
        self.master, *data = _nodes(kind, {"master": "master", "data-1": "data,ingest", "data-2": "data,ingest"})
        self.data = tuple(data)
        super().__init__((self.master, *self.data))

    @property
    def url(self) -> str:
        """Return the URLs of the data nodes, in the form of ELASTICSEARCH_URL."""
        return ",".join(node.url for node in self.data)


class ZonesCluster(_Nodes):
    """Three equal nodes, each in a zone of its own; any of them may die. `settings` are those of each node."""

    zones = ("a", "b", "c")

    def __init__(self, kind: type[SearchNode], settings: Mapping[str, str] = NO_SETTINGS) -> None:
        awareness = {
            "cluster.routing.allocation.awareness.attributes": "zone",
            "cluster.routing.allocation.awareness.force.zone.values": ",".join(self.zones),
            **settings,
        }
        roles = dict.fromkeys(self.zones, "master,data,ingest")
        super().__init__(_nodes(kind, roles, {zone: {"node.attr.zone": zone, **awareness} for zone in self.zones}))

    @property
    def url(self) -> str:
        """Return the URLs of all nodes, in the form of ELASTICSEARCH_URL."""
        return ",".join(node.url for node in self.nodes)


def _nodes(
    kind: type[SearchNode], roles: Mapping[str, str], settings: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[SearchNode, ...]:
    """Return a node for each name and its roles; those with the role master elect one of them."""
    ports = {name: free_port() for name in roles}
    electable = [name for name, own in roles.items() if "master" in own]
    return tuple(
        kind(
            heap_mib=DATA_HEAP_MIB if "data" in own else MASTER_HEAP_MIB,
            membership={
                "node.name": name,
                "node.roles": own,
                "transport.port": str(ports[name]),
                "discovery.seed_hosts": ",".join(f"127.0.0.1:{ports[other]}" for other in electable),
                "cluster.initial_master_nodes": ",".join(electable),
                **(settings or {}).get(name, NO_SETTINGS),
            },
        )
        for name, own in roles.items()
    )
