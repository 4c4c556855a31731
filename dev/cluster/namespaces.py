"""A namespace for tests of manifests; it enforces the Pod Security Standard `restricted`."""

import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager

from dev.cluster.control_plane import Cluster, Object

# Many times the longest wait on two idle cores.
TIMEOUT_S = 180
# A line break in kubectl's JSONPath templates.
NEWLINE = '{"\\n"}'
POD_SECURITY = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


class Namespace:
    """A new namespace and its objects."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = f"match-{secrets.token_hex(3)}"
        cluster.apply(
            [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": POD_SECURITY}}]
        )

    def delete(self) -> None:
        """Start the deletion of the namespace and its objects, without waiting for the end."""
        self.kubectl("delete", "namespace", self.name, "--wait=false")

    def apply(self, objects: Iterable[Object], *options: str) -> str:
        """Apply objects with strict validation; return the warnings. Raises KubectlFailed."""
        return self.cluster.apply(objects, "--namespace", self.name, *options)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output. Raises KubectlFailed."""
        return self.cluster.kubectl("--namespace", self.name, *arguments, stdin=stdin)

    def objects(self, kinds: str, *options: str) -> list[Object]:
        """Return the objects of some kinds, for example `deployment,job`."""
        items: list[Object] = self.cluster.read("--namespace", self.name, kinds, *options)["items"]
        return items

    def names(self, kind: str, *options: str) -> set[str]:
        """Return the names of the objects of a kind."""
        return {item["metadata"]["name"] for item in self.objects(kind, *options)}

    def field(self, name: str, path: str) -> str:
        """Return a field of an object, for example `.spec.replicas` of `deployment/match`; empty if it is not set."""
        return self.kubectl("get", name, "-o", f"jsonpath={{{path}}}")

    def watching(self, name: str, path: str) -> AbstractContextManager[list[str]]:
        """Collect the values of a field of an object during the `with`."""
        return self.cluster.watching("--namespace", self.name, name, "-o", f"jsonpath={{{path}}}{NEWLINE}")

    def watching_pods(self, selector: str) -> AbstractContextManager[list[str]]:
        """Collect the events of pods during the `with`, beginning with an event for each existing pod.

        Each line is `event|name|deletion timestamp|status of the condition Ready`.
        """
        ready = '.object.status.conditions[?(@.type=="Ready")].status'
        fields = (".type", ".object.metadata.name", ".object.metadata.deletionTimestamp", ready)
        line = "|".join(f"{{{field}}}" for field in fields)
        events = ("--output-watch-events", "-o", f"jsonpath={line}{NEWLINE}")
        return self.cluster.watching("--namespace", self.name, "pods", selector, *events)

    def wait_until_up(self) -> None:
        """Wait until all pods of Deployments and StatefulSets are ready and all Jobs are complete."""
        for kind in ("deployment", "statefulset"):
            for name in sorted(self.names(kind)):
                self.kubectl("rollout", "status", f"{kind}/{name}", f"--timeout={TIMEOUT_S}s")
        for name in sorted(self.names("job")):
            self.kubectl("wait", "--for=condition=Complete", f"job/{name}", f"--timeout={TIMEOUT_S}s")
