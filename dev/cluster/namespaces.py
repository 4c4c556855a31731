"""A namespace to try manifests in: what is not restricted as the Pod Security Standard says has no pods there."""

import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager

from dev.cluster.control_plane import Cluster, Object

# Many times what anything takes on two quiet cores.
PATIENCE_S = 180
# As kubectl's templates write it.
NEWLINE = '{"\\n"}'
GUARD = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


class Namespace:
    """A namespace of its own, and what is in it; `forget` removes both."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = f"match-{secrets.token_hex(3)}"
        cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": GUARD}}])

    def forget(self) -> None:
        """Have the cluster delete it; that goes on for a while."""
        self.kubectl("delete", "namespace", self.name, "--wait=false")

    def apply(self, objects: Iterable[Object], *options: str) -> str:
        """Apply objects in the strictest form; return the warnings. Raises Refused."""
        return self.cluster.apply(objects, "--namespace", self.name, *options)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Return what kubectl prints. Raises Refused where it fails."""
        return self.cluster.kubectl("--namespace", self.name, *arguments, given=given)

    def all(self, kinds: str, *options: str) -> list[Object]:
        """Return the objects of some kinds, as `deployment,job`."""
        found: list[Object] = self.cluster.read("--namespace", self.name, kinds, *options)["items"]
        return found

    def names(self, kind: str, *options: str) -> set[str]:
        """Return the names of the objects of a kind."""
        return {found["metadata"]["name"] for found in self.all(kind, *options)}

    def field(self, what: str, path: str) -> str:
        """Return a field of an object, as `deployment/match` and `.spec.replicas`; empty where it has none."""
        return self.kubectl("get", what, "-o", f"jsonpath={{{path}}}")

    def watching(self, what: str, path: str) -> AbstractContextManager[list[str]]:
        """Collect every value that a field of an object has during the `with`."""
        return self.cluster.watching("--namespace", self.name, what, "-o", f"jsonpath={{{path}}}{NEWLINE}")

    def watching_pods(self, selector: str) -> AbstractContextManager[list[str]]:
        """Collect what happens to pods during the `with`, first that they are there.

        Each line is `event|name|since when it is to end|whether it is ready`.
        """
        ready = '.object.status.conditions[?(@.type=="Ready")].status'
        fields = (".type", ".object.metadata.name", ".object.metadata.deletionTimestamp", ready)
        line = "|".join(f"{{{field}}}" for field in fields)
        events = ("--output-watch-events", "-o", f"jsonpath={line}{NEWLINE}")
        return self.cluster.watching("--namespace", self.name, "pods", selector, *events)

    def wait_until_up(self) -> None:
        """Wait until every Deployment and StatefulSet has all its pods ready, and every Job has done its work."""
        for kind in ("deployment", "statefulset"):
            for name in sorted(self.names(kind)):
                self.kubectl("rollout", "status", f"{kind}/{name}", f"--timeout={PATIENCE_S}s")
        for name in sorted(self.names("job")):
            self.kubectl("wait", "--for=condition=Complete", f"job/{name}", f"--timeout={PATIENCE_S}s")
