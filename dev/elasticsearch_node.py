"""A real Elasticsearch node on loopback, without Docker, for tests and benchmarks.

The node has no security, scripting or reindex module, and does not respond to `GET /`. Index, bulk, search, kNN,
versions and refresh are complete.

    python -m dev.elasticsearch_node      prints the URL, runs until Ctrl-C
"""

import re
import zipfile
from pathlib import Path

from dev.jars import ROOT, Jars
from dev.search_node import SINGLE_NODE, SearchNode, run

__all__ = ["SINGLE_NODE", "Node", "arrange", "why_not"]

PLUGIN = "transport-netty4"


def arrange(node: Path) -> None:
    """Move the plugin and its dependencies into a module."""
    lib, module = node / "lib", node / "modules" / PLUGIN
    module.mkdir(parents=True)
    for jar in [*lib.glob("netty-*.jar"), *lib.glob(f"{PLUGIN}-*.jar")]:
        jar.rename(module / jar.name)
    with zipfile.ZipFile(next(module.glob(f"{PLUGIN}-*.jar"))) as archive:
        descriptor = archive.read(f"META-INF/es-plugins/{PLUGIN}/plugin-descriptor.properties").decode()
    # Without a module name the plugin is loaded from the class path: this node has no module layer.
    (module / "plugin-descriptor.properties").write_text(re.sub(r"(?m)^modulename=.*$", "", descriptor))


_JARS = Jars(product="Elasticsearch", recipe=ROOT / "dev" / "elasticsearch", arrange=arrange)
why_not = _JARS.why_not


class Node(SearchNode):
    """An Elasticsearch node (40 MB of jars)."""

    jars = _JARS

    def prepare(self, home: Path) -> None:
        """Link the modules."""
        (home / "modules").symlink_to(self.jars.folder() / "modules")
        (home / "plugins").mkdir()


if __name__ == "__main__":
    run(Node)
