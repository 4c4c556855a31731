"""A real OpenSearch node on loopback with the k-NN plugin, without Docker, for tests.

The node has no security plugin, and of the engines of the k-NN plugin only Lucene's: never create a field of another
engine, whose native library is missing. Index, bulk, search, kNN, versions and refresh are complete.

    python -m dev.opensearch_node      prints the URL, runs until Ctrl-C
"""

import zipfile
from pathlib import Path

from dev.jars import ROOT, Jars
from dev.search_node import SearchNode, run

__all__ = ["OpenSearchNode", "why_not"]

RECIPE = ROOT / "dev" / "opensearch"


def _arrange(node: Path) -> None:
    """Unpack the plugin; `stubs` has the classes that it names and no repository has."""
    lib = node / "lib"
    for plugin in lib.glob("opensearch-knn-*.zip"):
        with zipfile.ZipFile(plugin) as archive:
            archive.extractall(lib, [name for name in archive.namelist() if name.endswith(".jar")])
        plugin.unlink()


_JARS = Jars(product="OpenSearch", recipe=RECIPE, arrange=_arrange)
why_not = _JARS.why_not


class OpenSearchNode(SearchNode):
    """An OpenSearch node (58 MB of jars)."""

    jars = _JARS
    # A distribution sets these at its start.
    own_settings = {"http.type": "netty4", "transport.type": "netty4"}  # noqa: RUF012 - declared as a ClassVar

    def prepare(self, home: Path) -> None:
        """Create the folders that a node looks for."""
        for name in ("config", "modules", "plugins"):
            (home / name).mkdir()


if __name__ == "__main__":
    run(OpenSearchNode)
