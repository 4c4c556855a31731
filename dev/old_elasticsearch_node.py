"""A real node of an older Elasticsearch on loopback, without Docker, for tests of the import.

The nodes have no modules except the transport. All versions run on the JDK of the newest.

    python -m dev.old_elasticsearch_node 2      prints the URL, runs until Ctrl-C
"""

import sys

from dev import elasticsearch_node
from dev.jars import ROOT, Jars
from dev.search_node import SearchNode, run

RECIPES = ROOT / "dev" / "old_elasticsearch"
# The name of the port's setting before 7.
SINGLE_NODE = {"discovery.type": "single-node", "transport.tcp.port": "0"}


class Elasticsearch8(elasticsearch_node.Node):
    """A node of 8.19, started by the program of 9."""

    jars = Jars(
        product="Elasticsearch 8",
        recipe=RECIPES / "elasticsearch-8",
        arrange=elasticsearch_node.arrange,
        launch=ROOT / "dev" / "elasticsearch",
    )


class Elasticsearch7(SearchNode):
    """A node of 7.17."""

    jars = Jars(product="Elasticsearch 7", recipe=RECIPES / "elasticsearch-7", launch=RECIPES / "elasticsearch-6")


class Elasticsearch6(SearchNode):
    """A node of 6.8."""

    jars = Jars(product="Elasticsearch 6", recipe=RECIPES / "elasticsearch-6")
    heap_settings = {}  # noqa: RUF012 - declared as a ClassVar
    single_node = SINGLE_NODE


class Elasticsearch5(SearchNode):
    """A node of 5.6."""

    jars = Jars(product="Elasticsearch 5", recipe=RECIPES / "elasticsearch-5")
    heap_settings = {}  # noqa: RUF012 - declared as a ClassVar
    single_node = SINGLE_NODE


class Elasticsearch2(SearchNode):
    """A node of 2.4, in a cluster of its process."""

    jars = Jars(product="Elasticsearch 2", recipe=RECIPES / "elasticsearch-2")
    heap_settings = {}  # noqa: RUF012 - declared as a ClassVar
    single_node = {"node.local": "true"}  # noqa: RUF012 - declared as a ClassVar


NODES: dict[str, type[SearchNode]] = {
    "2": Elasticsearch2,
    "5": Elasticsearch5,
    "6": Elasticsearch6,
    "7": Elasticsearch7,
    "8": Elasticsearch8,
}


if __name__ == "__main__":
    run(NODES[sys.argv[1]])
