"""A real Elasticsearch cluster on loopback whose nodes tests can stop."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from dev.elasticsearch_node import Node
from dev.ports import free_port

MASTER_HEAP_MIB = 256
DATA_HEAP_MIB = 512


class Cluster:
    """A dedicated master node and two data nodes, deleted at the end of the `with`.

    Either data node may die: the master keeps the voting majority.
    """

    def __init__(self) -> None:
        master_port = free_port()
        self.master = _node(
            "master", transport_port=master_port, master_port=master_port, roles="master", heap_mib=MASTER_HEAP_MIB
        )
        self.data = tuple(
            _node(
                name, transport_port=free_port(), master_port=master_port, roles="data,ingest", heap_mib=DATA_HEAP_MIB
            )
            for name in ("data-1", "data-2")
        )
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            # In parallel: a data node waits for the master.
            with ThreadPoolExecutor() as pool:
                list(pool.map(undo.enter_context, self.nodes))
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return all nodes."""
        return (self.master, *self.data)

    @property
    def url(self) -> str:
        """Return the URLs of the data nodes, in the form of ELASTICSEARCH_URL."""
        return ",".join(node.url for node in self.data)

    def start(self) -> None:
        """Start the nodes that were stopped, with their data."""
        for node in self.nodes:
            if not node.running:
                node.start()


def _node(name: str, *, transport_port: int, master_port: int, roles: str, heap_mib: int) -> Node:
    membership = {
        "node.name": name,
        "node.roles": roles,
        "transport.port": str(transport_port),
        "discovery.seed_hosts": f"127.0.0.1:{master_port}",
        "cluster.initial_master_nodes": "master",
    }
    return Node(heap_mib=heap_mib, membership=membership)
