"""KEDA for a cluster: its operator, and the metrics server that autoscalers query."""

import base64
import contextlib
import socket
from collections.abc import Iterator

from dev.cluster import programs
from dev.cluster.control_plane import METRICS_HOST, START_TIMEOUT_S, Cluster, Object
from dev.cluster.processes import running, wait_until
from dev.ports import free_port

SERVICE, NAMESPACE, _ = METRICS_HOST.split(".")
GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"


@contextlib.contextmanager
def keda(cluster: Cluster) -> Iterator[None]:
    """Run KEDA during the `with`. Its custom resources have to be defined before."""
    port, inner_port = free_port(), free_port()
    _register(cluster, port)
    environment = {
        "KUBECONFIG": str(cluster.kubeconfig),
        "POD_NAMESPACE": NAMESPACE,
        "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
        "WATCH_NAMESPACE": "",
    }
    certificates = cluster.certificates
    operator = [
        f"--cert-dir={certificates.folder}",
        f"--metrics-service-bind-address=127.0.0.1:{inner_port}",
        "--metrics-bind-address=0",
        "--health-probe-bind-address=0",
    ]
    adapter = [
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={certificates.folder}",
        f"--tls-cert-file={certificates.certificate}",
        f"--tls-private-key-file={certificates.key}",
        f"--metrics-service-address=127.0.0.1:{inner_port}",
        *(f"--{client}-kubeconfig={cluster.kubeconfig}" for client in ("lister", "authentication", "authorization")),
        # Its own metrics; this port has no option for an address.
        f"--port={free_port()}",
    ]
    with (
        running(programs.KEDA_OPERATOR, operator, logs=cluster.folder, environment=environment) as manager,
        running(programs.KEDA_ADAPTER, adapter, logs=cluster.folder, environment=environment) as server,
    ):
        wait_until(lambda: _listens(inner_port), manager, within_s=START_TIMEOUT_S)
        wait_until(lambda: cluster.answers(f"/apis/{GROUP}/{VERSION}"), server, within_s=START_TIMEOUT_S)
        yield


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _register(cluster: Cluster, port: int) -> None:
    """Register KEDA's metrics server, at a port of loopback, with the API server."""
    authority = base64.b64encode(cluster.certificates.authority.read_bytes()).decode()
    objects: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SERVICE, "namespace": NAMESPACE},
            # No pod runs it: the Service is an alias of localhost.
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{VERSION}.{GROUP}"},
            "spec": {
                "group": GROUP,
                "version": VERSION,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"name": SERVICE, "namespace": NAMESPACE, "port": port},
                "caBundle": authority,
            },
        },
    ]
    cluster.apply(objects)
