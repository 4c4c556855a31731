"""A Kubernetes cluster of real programs whose nodes do not exist: etcd, API server, controllers, scheduler, kwok.

    python -m dev.cluster.control_plane      prints how to reach it, runs until Ctrl-C

Everything that decides is real: admission, validation, controllers, the scheduler. No container is started: kwok says
of each pod that it runs and is ready (`stages.yaml`). All listen on loopback, with certificates and a token of their
own, in a folder that is gone at the end.
"""

import contextlib
import json
import secrets
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

from dev.cluster import programs
from dev.cluster.certificates import Certificates, make_certificates
from dev.cluster.processes import ASK_EVERY_S, NotStarted, Running, running, wait_until
from dev.ports import free_port

# A Kubernetes object as its JSON says it.
Object = dict[str, Any]

STAGES = Path(__file__).parent / "stages.yaml"
# Ten times what each takes on two quiet cores.
START_TIMEOUT_S = 120.0
# Above the longest that kubectl itself is told to wait.
KUBECTL_TIMEOUT_S = 300.0
ZONES = ("north", "south", "west")
# What a middling machine offers, so that requests which fit nowhere are found.
NODE_SIZE = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"}
# By this name the API server asks KEDA for metrics, and expects it in the certificate.
METRICS_HOST = "keda-metrics-apiserver.keda.svc"
# A busy machine must not make nodes look dead.
NODE_LEASE_S = 600


class Refused(Exception):
    """The API server, or kubectl, said no; the text is what it said."""


class Cluster:
    """One cluster with data of its own, ended and forgotten at the end of the `with`."""

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
            # All went well: what was started ends with us, not with this block.
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def kubeconfig(self) -> Path:
        """Return the file by which any Kubernetes client reaches the cluster as its administrator."""
        return self.folder / "kubeconfig.json"

    @property
    def command(self) -> list[str]:
        """Return how a shell would call kubectl for this cluster."""
        return [str(programs.KUBECTL.path), "--kubeconfig", str(self.kubeconfig)]

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Return what kubectl prints; `given` goes to its standard input. Raises Refused where it fails."""
        return self._kubectl(*arguments, given=given).stdout

    def answers(self, path: str) -> bool:
        """Say whether the API server has an answer at a path."""
        with contextlib.suppress(Refused):
            return self.kubectl("get", "--raw", path) != ""
        return False

    def apply(self, objects: Iterable[Object], *options: str) -> str:
        """Apply objects in the strictest form; return the warnings. Raises Refused."""
        strict = ("--server-side", "--force-conflicts", "--validate=strict", "-f", "-")
        return self._kubectl("apply", *strict, *options, given=_listed(objects)).stderr

    def define(self, files: Iterable[Path]) -> None:
        """Add kinds of objects, which files define."""
        # Applied by the client they would not fit into the annotation that remembers them.
        self.kubectl("apply", "--server-side", *(f"--filename={file}" for file in files))
        self._wait_for_kinds()

    def read(self, *arguments: str) -> Object:
        """Return what `kubectl get` finds."""
        found: Object = json.loads(self.kubectl("get", "-o", "json", *arguments))
        return found

    @contextlib.contextmanager
    def watching(self, *arguments: str) -> Iterator[list[str]]:
        """Collect the lines that `kubectl get --watch` prints during the `with`, the last of them at its end."""
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

    def _kubectl(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=given,
            timeout=KUBECTL_TIMEOUT_S,
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done

    def _start(self) -> None:
        self._port = free_port()
        self._write_access(token=secrets.token_hex(16))
        etcd = self._start_etcd()
        self._start_api_server(etcd)
        self._start_controllers()
        self._add_nodes()

    def _wait_for_kinds(self) -> None:
        # Not `kubectl wait`: it fails where there are no conditions yet.
        deadline = monotonic() + START_TIMEOUT_S
        while not all(_is_established(kind) for kind in self.read("crd")["items"]):
            if monotonic() > deadline:
                raise NotStarted("the API server does not take the kinds that were defined")
            sleep(ASK_EVERY_S)

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
            # What is lost in a power cut is forgotten at the end anyway.
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        return clients

    def _start_api_server(self, etcd: str) -> None:
        shown = self.certificates
        server = self._run(
            programs.API_SERVER,
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            # The Service `kubernetes` would send pods to it, and there are none that run; loopback it does not take.
            "--advertise-address=192.0.2.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--tls-cert-file={shown.certificate}",
            f"--tls-private-key-file={shown.key}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://localhost",
            f"--service-account-key-file={shown.certificate}",
            f"--service-account-signing-key-file={shown.key}",
            # By these it proves to the servers behind it who asks: KEDA's of external metrics.
            f"--proxy-client-cert-file={shown.certificate}",
            f"--proxy-client-key-file={shown.key}",
            f"--requestheader-client-ca-file={shown.authority}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        )
        wait_until(lambda: self.answers("/readyz"), server, within_s=START_TIMEOUT_S)

    def _start_controllers(self) -> None:
        alone = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false")
        self._run(
            programs.CONTROLLERS,
            *alone,
            "--secure-port=0",
            f"--service-account-private-key-file={self.certificates.key}",
            # Every 15 s in a real cluster: what it does with what it sees stays the same.
            "--horizontal-pod-autoscaler-sync-period=2s",
            f"--node-monitor-grace-period={NODE_LEASE_S}s",
        )
        self._run(programs.SCHEDULER, *alone, "--secure-port=0")
        self._run(
            programs.KWOK,
            f"--kubeconfig={self.kubeconfig}",
            f"--config={STAGES}",
            "--manage-all-nodes=true",
            f"--node-lease-duration-seconds={NODE_LEASE_S}",
        )

    def _add_nodes(self) -> None:
        names = [f"{zone}-{number}" for zone in ZONES for number in (1, 2)]
        given = _listed([_node(name) for name in names])
        # Created, not applied: that alone takes the status with it.
        self.kubectl("create", "-f", "-", given=given)
        patiently = f"--timeout={START_TIMEOUT_S:g}s"
        self.kubectl("wait", "--for=condition=Ready", patiently, *(f"node/{name}" for name in names))

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


def _listed(objects: Iterable[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def main() -> None:
    """Run a cluster until Ctrl-C."""
    if reason := programs.why_not():
        raise SystemExit(reason)
    stop = threading.Event()
    for how in (signal.SIGINT, signal.SIGTERM):
        signal.signal(how, lambda *_: stop.set())
    with Cluster() as cluster:
        print(f"{shlex.join(cluster.command)} reaches it; Ctrl-C ends it", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
