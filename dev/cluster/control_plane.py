"""A Kubernetes cluster of real programs with simulated nodes: etcd, API server, controllers, scheduler, kwok.

    python -m dev.cluster.control_plane      prints the kubectl command, runs until Ctrl-C

Admission, validation, controllers and scheduler are real. No container is started: kwok reports each pod as running and
ready (`stages.yaml`). All programs listen on loopback. Certificates, token and data are in a temporary folder.
"""

import contextlib
import json
import secrets
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

from dev.cluster import programs
from dev.cluster.certificates import Certificates, make_certificates
from dev.cluster.processes import POLL_S, NotStarted, Running, running, wait_until
from dev.interrupts import on_interrupt
from dev.ports import free_port

# The JSON of a Kubernetes object.
Object = dict[str, Any]

STAGES = Path(__file__).parent / "stages.yaml"
# Ten times the start of each program on two idle cores.
START_TIMEOUT_S = 120.0
# Longer than the longest --timeout of a kubectl command.
KUBECTL_TIMEOUT_S = 300.0
ZONES = ("north", "south", "west")
# A common machine size, so that pods with larger requests cannot be scheduled.
NODE_SIZE = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"}
# The API server queries KEDA's metrics under this name and verifies it in the certificate.
METRICS_HOST = "keda-metrics-apiserver.keda.svc"
# Long, so that nodes stay ready on a busy machine.
NODE_LEASE_S = 600


class KubectlFailed(Exception):
    """kubectl or the API server reported an error; the text is that error."""


class Cluster:
    """A cluster, stopped and deleted at the end of the `with`."""

    def __init__(self) -> None:
        self.folder = Path()
        self.certificates = Certificates(Path())
        self._port = 0
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._exit:
            self.folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="match-cluster-")))
            self.certificates = make_certificates(self.folder / "certificates", names=[METRICS_HOST])
            self._start()
            # All programs started: they now end with this object, not with this block.
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def kubeconfig(self) -> Path:
        """Return the kubeconfig file of the cluster's administrator."""
        return self.folder / "kubeconfig.json"

    @property
    def command(self) -> list[str]:
        """Return the kubectl command of this cluster, without arguments."""
        return [str(programs.KUBECTL.path), "--kubeconfig", str(self.kubeconfig)]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output. Raises KubectlFailed."""
        return self._kubectl(*arguments, stdin=stdin).stdout

    def answers(self, path: str) -> bool:
        """Return whether a GET of the API server's path succeeds."""
        with contextlib.suppress(KubectlFailed):
            return self.kubectl("get", "--raw", path) != ""
        return False

    def apply(self, objects: Iterable[Object], *options: str) -> str:
        """Apply objects with strict validation; return the warnings. Raises KubectlFailed."""
        strict = ("--server-side", "--force-conflicts", "--validate=strict", "-f", "-")
        return self._kubectl("apply", *strict, *options, stdin=_list(objects)).stderr

    def define(self, files: Iterable[Path]) -> None:
        """Apply files of custom resource definitions, and wait until their kinds are served."""
        # Server-side: they are too large for the annotation of a client-side apply.
        self.kubectl("apply", "--server-side", *(f"--filename={file}" for file in files))
        self._wait_for_kinds()

    def read(self, *arguments: str) -> Object:
        """Return the JSON of `kubectl get`."""
        result: Object = json.loads(self.kubectl("get", "-o", "json", *arguments))
        return result

    @contextlib.contextmanager
    def watching(self, *arguments: str) -> Iterator[list[str]]:
        """Collect the output lines of `kubectl get --watch` during the `with`."""
        command = [*self.command, "get", "--watch", *arguments]
        lines: list[str] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
            first = process.stdout.readline() if process.stdout else ""
            lines.append(first)
            reader.start()
            try:
                yield lines
            finally:
                process.terminate()
                reader.join()

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=KUBECTL_TIMEOUT_S,
        )
        if done.returncode:
            raise KubectlFailed(done.stderr.strip())
        return done

    def _start(self) -> None:
        self._port = free_port()
        self._write_access(token=secrets.token_hex(16))
        etcd = self._start_etcd()
        self._start_api_server(etcd)
        self._start_controllers()
        self._add_nodes()

    def _wait_for_kinds(self) -> None:
        # Not `kubectl wait`: it fails for an object without conditions.
        deadline = monotonic() + START_TIMEOUT_S
        while not all(_is_established(kind) for kind in self.read("crd")["items"]):
            if monotonic() > deadline:
                raise NotStarted("the API server does not serve the defined kinds")
            sleep(POLL_S)

    def _write_access(self, *, token: str) -> None:
        (self.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "match",
                    "cluster": {
                        "server": f"https://127.0.0.1:{self._port}",
                        "certificate-authority": str(self.certificates.authority),
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "match", "context": {"cluster": "match", "user": "admin"}}],
            "current-context": "match",
        }
        self.kubeconfig.write_text(json.dumps(config))
        self.kubeconfig.chmod(0o600)

    def _start_etcd(self) -> str:
        clients, peers = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        self._run(
            programs.ETCD,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            # The data is temporary, so a power cut may lose it.
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        return clients

    def _start_api_server(self, etcd: str) -> None:
        certificates = self.certificates
        server = self._run(
            programs.API_SERVER,
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            # The endpoint of the Service `kubernetes`: it must not be a loopback address, and no pod uses it.
            "--advertise-address=192.0.2.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--tls-cert-file={certificates.certificate}",
            f"--tls-private-key-file={certificates.key}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://localhost",
            f"--service-account-key-file={certificates.certificate}",
            f"--service-account-signing-key-file={certificates.key}",
            # Credentials for aggregated API servers, here KEDA's metrics server.
            f"--proxy-client-cert-file={certificates.certificate}",
            f"--proxy-client-key-file={certificates.key}",
            f"--requestheader-client-ca-file={certificates.authority}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        )
        wait_until(lambda: self.answers("/readyz"), server, within_s=START_TIMEOUT_S)

    def _start_controllers(self) -> None:
        common = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false")
        self._run(
            programs.CONTROLLERS,
            *common,
            "--secure-port=0",
            f"--service-account-private-key-file={self.certificates.key}",
            # 15 s by default; a shorter period does not change the decisions.
            "--horizontal-pod-autoscaler-sync-period=2s",
            f"--node-monitor-grace-period={NODE_LEASE_S}s",
        )
        self._run(programs.SCHEDULER, *common, "--secure-port=0")
        self._run(
            programs.KWOK,
            f"--kubeconfig={self.kubeconfig}",
            f"--config={STAGES}",
            "--manage-all-nodes=true",
            f"--node-lease-duration-seconds={NODE_LEASE_S}",
        )

    def _add_nodes(self) -> None:
        names = [f"{zone}-{number}" for zone in ZONES for number in (1, 2)]
        nodes = _list([_node(name) for name in names])
        # `create`, because `apply` ignores the status.
        self.kubectl("create", "-f", "-", stdin=nodes)
        timeout = f"--timeout={START_TIMEOUT_S:g}s"
        self.kubectl("wait", "--for=condition=Ready", timeout, *(f"node/{name}" for name in names))

    def _run(self, program: programs.Program, *arguments: str) -> Running:
        return self._exit.enter_context(running(program, arguments, logs=self.folder))


def _node(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": name.partition("-")[0],
            },
        },
        "status": {"capacity": NODE_SIZE, "allocatable": NODE_SIZE},
    }


def _is_established(kind: Object) -> bool:
    conditions = kind.get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _list(objects: Iterable[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def main() -> None:
    """Run a cluster until Ctrl-C."""
    if reason := programs.why_not():
        raise SystemExit(reason)
    stop = on_interrupt()
    with Cluster() as cluster:
        print(f"kubectl: {shlex.join(cluster.command)} (Ctrl-C stops the cluster)", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
