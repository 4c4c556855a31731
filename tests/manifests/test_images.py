"""The images' content and behaviour, without a container engine (checks/image.py)."""

import ctypes
import fcntl
import io
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests
import yaml
from PIL import Image

from checks.dockerfile import read_dockerfile
from checks.image import ROOT, Bind, BuiltImage, Container, why_not
from dev.asking import answers
from dev.redis_server import RedisServer
from support.waiting import wait_until

# The first run on a machine installs the requirements of each image.
pytestmark = pytest.mark.timeout(1200)
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
# On a busy machine the start takes a minute.
PATIENCE_S = 240.0
API_PORT = 8888
API = f"http://127.0.0.1:{API_PORT}"


@pytest.fixture(scope="module")
def network(give_up: Callable[[str], NoReturn]) -> Iterator[None]:
    """A network namespace for this thread and its children: all ports are free, and no other process reaches them."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        if libc.unshare(CLONE_NEWNET):
            give_up(f"cannot create a network namespace: {os.strerror(ctypes.get_errno())}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        yield
        assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


@pytest.fixture(scope="module")
def images(give_up: Callable[[str], NoReturn], tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltImage]:
    if reason := why_not():
        give_up(reason)
    folder = tmp_path_factory.mktemp("images")
    targets = {"api": ("api", None), "worker": ("worker", "worker"), "flower": ("worker", "flower")}
    return {
        name: BuiltImage(read_dockerfile(ROOT / f"Dockerfile.{file}"), target, folder / name)
        for name, (file, target) in targets.items()
    }


@pytest.fixture(scope="module")
def containers(
    images: dict[str, BuiltImage],
    network: None,  # noqa: ARG001 - the containers start in it
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Container]]:
    """The service with a Redis, and the embedded store on a volume that API and worker share."""
    folder = tmp_path_factory.mktemp("containers")
    # The user of the images needs access.
    for parent in (folder, folder.parent):
        parent.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    os.chown(data, 10001, 10001)
    volumes = [Bind(data, "/data", read_only=False)]
    with RedisServer(folder / "redis", port=6379) as redis:
        settings = {"REDIS_URL": redis.url, "MATCH_STORE_URL": "sqlite:////data/match.db", "WORKER_COUNT": "2"}
        dashboard = {"CELERY_BROKER_URL": redis.url, "FLOWER_BASIC_AUTH": "somebody:secret"}
        running = {
            # gunicorn would create its control socket here.
            "api": Container(images["api"], folder / "api", {**settings, "XDG_RUNTIME_DIR": "/tmp"}, volumes=volumes),  # noqa: S108 - in the container
            "worker": Container(images["worker"], folder / "worker", settings, volumes=volumes),
            "flower": Container(images["flower"], folder / "flower", dashboard),
        }
        try:
            yield running
        finally:
            for container in running.values():
                container.kill()


def photograph() -> bytes:
    return (ROOT / "examples" / "images" / "chelsea.jpg").read_bytes()


@pytest.mark.parametrize("name", ["api", "worker", "flower"])
def test_an_image_becomes_healthy(containers: dict[str, Container], name: str) -> None:
    container = containers[name]

    wait_until(lambda: container.is_healthy() or not container.running(), "healthy", within_s=PATIENCE_S)

    assert container.running(), container.log.read_text()


def test_an_image_is_added_and_found(containers: dict[str, Container]) -> None:
    wait_until(lambda: answers(f"{API}/readyz", within_s=5), "the API is ready", within_s=PATIENCE_S)

    added = requests.post(
        f"{API}/add", files={"image": photograph()}, data={"filepath": "chelsea.jpg", "wait": "60"}, timeout=PATIENCE_S
    )
    matches = requests.post(f"{API}/search", files={"image": smaller(photograph())}, timeout=PATIENCE_S)

    assert added.status_code == 200, added.text + containers["worker"].log.read_text()
    assert [match["filepath"] for match in matches.json()["result"]] == ["chelsea.jpg"]


def smaller(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as opened, io.BytesIO() as out:
        opened.resize((opened.width // 2, opened.height // 2)).save(out, "JPEG")
        return out.getvalue()


@pytest.mark.parametrize("name", ["api", "worker", "flower"])
def test_it_runs_unprivileged_with_few_writable_folders(containers: dict[str, Container], name: str) -> None:
    container = containers[name]

    user = container.execute("id").stdout.strip()
    writable = [
        folder
        for folder in ("/", "/app", "/opt/match", "/etc", "/usr", "/tmp", "/dev/shm")  # noqa: S108 - in the container
        if container.execute("sh", "-c", f"touch {folder}/written").returncode == 0
    ]

    assert user == "uid=10001(match) gid=10001(match) groups=10001(match)"
    assert writable == ["/tmp", "/dev/shm"]  # noqa: S108 - in the container


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("api", {"pytest", "pip", "setuptools", "flower", "skimage", "workers", "dev"}),
        ("worker", {"pytest", "pip", "setuptools", "flask", "gunicorn", "flower", "api", "dev"}),
        ("flower", {"pytest", "pip", "setuptools", "flask", "gunicorn", "numpy", "PIL", "api", "workers", "common"}),
    ],
)
def test_it_has_no_unused_packages(containers: dict[str, Container], name: str, packages: set[str]) -> None:
    script = f"import importlib.util as u; print([n for n in {sorted(packages)} if u.find_spec(n)])"

    done = containers[name].execute("python", "-c", script)

    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", ["api", "worker"])
def test_all_modules_are_compiled_in_the_image(containers: dict[str, Container], name: str) -> None:
    script = (
        "import pathlib; app = pathlib.Path('/app'); "
        "print([str(p) for p in app.rglob('*.py') if not list((p.parent / '__pycache__').glob(p.stem + '.*.pyc'))])"
    )

    assert containers[name].execute("python", "-c", script).stdout == "[]\n"


def test_gunicorn_has_no_control_socket(containers: dict[str, Container]) -> None:
    wait_until(containers["api"].is_healthy, "healthy", within_s=PATIENCE_S)

    sockets = containers["api"].execute("find", "/tmp", "-type", "s")  # noqa: S108 - in the container

    assert (sockets.returncode, sockets.stdout) == (0, "")


def test_flower_requires_its_password(containers: dict[str, Container]) -> None:
    wait_until(containers["flower"].is_healthy, "flower is healthy", within_s=PATIENCE_S)

    response = requests.get("http://127.0.0.1:5555/api/workers", timeout=PATIENCE_S)

    assert response.status_code == 401


@pytest.mark.parametrize("name", ["api", "worker", "flower"])
def test_the_probes_of_its_deployment_succeed(containers: dict[str, Container], name: str) -> None:
    wait_until(containers[name].is_healthy, "healthy", within_s=PATIENCE_S)
    pod = containers_of("Deployment", name)
    ports = {port["name"]: port["containerPort"] for container in pod for port in container.get("ports", [])}
    # nginx forwards the probes of the API's pod.
    ports["health"] = API_PORT
    probes = [
        probe["httpGet"]
        for container in pod
        for key, probe in container.items()
        if key.endswith("Probe")
        if "httpGet" in probe
    ]

    # The kubelet connects to the pod's address: a program that listens on 127.0.0.1 only does not answer.
    urls = {f"http://127.0.0.2:{ports[probe['port']]}{probe['path']}" for probe in probes}
    statuses = {url: requests.get(url, timeout=PATIENCE_S).status_code for url in urls}

    assert statuses
    assert set(statuses.values()) == {200}, statuses


def containers_of(kind: str, name: str) -> list[dict[str, Any]]:
    """Return the containers of an object in a file of the base."""
    documents = yaml.safe_load_all((ROOT / "k8s" / "base" / f"{name}.yaml").read_text())
    (workload,) = (document for document in documents if document["kind"] == kind)
    return list(workload["spec"]["template"]["spec"]["containers"])


def test_the_jobs_command_prepares_the_index(containers: dict[str, Container]) -> None:
    done = containers["worker"].execute(*containers_of("Job", "prepare")[0]["command"])

    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["match prepare: the store is ready"])


def test_a_healthcheck_fails_without_its_program(
    images: dict[str, BuiltImage], containers: dict[str, Container]
) -> None:
    unused_ports = {"api": "PORT=1", "worker": "MATCH_WORKER_METRICS_PORT=1"}

    results = {
        name: containers[name].execute("env", port, *images[name].healthcheck) for name, port in unused_ports.items()
    }

    assert {name: done.returncode != 0 and "refused" in done.stderr for name, done in results.items()} == {
        "api": True,
        "worker": True,
    }


@pytest.mark.parametrize("name", ["api", "worker", "flower"])
def test_sigterm_ends_it_with_status_0(containers: dict[str, Container], name: str) -> None:
    container = containers[name]
    wait_until(container.is_healthy, "healthy", within_s=PATIENCE_S)

    status = container.stop(within_s=PATIENCE_S)

    assert status == 0, container.log.read_text()
