"""Contents and behaviour of the images, without a container engine (checks/image.py)."""

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
from PIL import Image as PillowImage

from checks.dockerfile import read_dockerfile
from checks.image import ROOT, Bind, Container, Image, why_not
from dev.asking import answers
from dev.redis_server import RedisServer
from support.waiting import wait_until

# The first run on a machine installs the requirements of each image.
pytestmark = pytest.mark.timeout(1200)
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
# All services take a minute to start on a busy machine.
PATIENCE_S = 240.0
API_PORT = 8888
# gunicorn creates its control socket there.
SOCKETS = {"XDG_RUNTIME_DIR": "/tmp"}  # noqa: S108 - in the container
API = f"http://127.0.0.1:{API_PORT}"


@pytest.fixture(scope="module")
def network(give_up: Callable[[str], NoReturn]) -> Iterator[None]:
    """A network namespace for this thread and its child processes: every port is free in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        if libc.unshare(CLONE_NEWNET):
            give_up(f"no network of one's own here: {os.strerror(ctypes.get_errno())}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as interface:
            fcntl.ioctl(interface, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        yield
        assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


@pytest.fixture(scope="module")
def images(give_up: Callable[[str], NoReturn], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    if reason := why_not():
        give_up(reason)
    folder = tmp_path_factory.mktemp("images")
    targets = {"api": ("api", None), "worker": ("worker", "worker"), "flower": ("worker", "flower")}
    return {
        name: Image(read_dockerfile(ROOT / f"Dockerfile.{file}"), target, folder / name)
        for name, (file, target) in targets.items()
    }


@pytest.fixture(scope="module")
def containers(
    images: dict[str, Image],
    network: None,  # noqa: ARG001 - they are started in it
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Container]]:
    """The service, with a Redis beside it and the embedded store on a volume that API and worker share."""
    folder = tmp_path_factory.mktemp("containers")
    # The images' user must be able to enter the folder.
    for parent in (folder, folder.parent):
        parent.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    os.chown(data, 10001, 10001)
    volumes = [Bind(data, "/data", read_only=False)]
    with RedisServer(folder / "redis", port=6379) as redis:
        environment = {"REDIS_URL": redis.url, "MATCH_STORE_URL": "sqlite:////data/match.db", "WORKER_COUNT": "2"}
        dashboard = {"CELERY_BROKER_URL": redis.url, "FLOWER_BASIC_AUTH": "somebody:secret"}
        running = {
            "api": Container(
                images["api"],
                folder / "api",
                environment | SOCKETS,
                volumes=volumes,
            ),
            "worker": Container(images["worker"], folder / "worker", environment, volumes=volumes),
            "flower": Container(images["flower"], folder / "flower", dashboard),
        }
        try:
            yield running
        finally:
            for container in running.values():
                container.kill()


def image_bytes() -> bytes:
    return (ROOT / "examples" / "images" / "chelsea.jpg").read_bytes()


@pytest.mark.parametrize("name", ["api", "worker", "flower"])
def test_an_image_becomes_healthy(containers: dict[str, Container], name: str) -> None:
    container = containers[name]

    wait_until(lambda: container.is_healthy() or not container.running(), "healthy", within_s=PATIENCE_S)

    assert container.running(), container.log.read_text()


def test_an_image_is_added_and_found(containers: dict[str, Container]) -> None:
    wait_until(lambda: answers(f"{API}/readyz", within_s=5), "the API is ready", within_s=PATIENCE_S)

    added = requests.post(
        f"{API}/add", files={"image": image_bytes()}, data={"filepath": "chelsea.jpg", "wait": "60"}, timeout=PATIENCE_S
    )
    searched = requests.post(f"{API}/search", files={"image": smaller(image_bytes())}, timeout=PATIENCE_S)

    assert added.status_code == 200, added.text + containers["worker"].log.read_text()
    assert [match["filepath"] for match in searched.json()["result"]] == ["chelsea.jpg"]


def smaller(data: bytes) -> bytes:
    with PillowImage.open(io.BytesIO(data)) as opened, io.BytesIO() as out:
        opened.resize((opened.width // 2, opened.height // 2)).save(out, "JPEG")
        return out.getvalue()


@pytest.mark.parametrize("name", ["api", "worker", "flower"])
def test_unprivileged_containers_write_only_where_they_must(containers: dict[str, Container], name: str) -> None:
    container = containers[name]

    user = container.execute("id").stdout.strip()
    writable = [
        folder
        for folder in ("/", "/app", "/opt/match", "/etc", "/usr", "/tmp", "/dev/shm")  # noqa: S108 - inside of it
        if container.execute("sh", "-c", f"touch {folder}/written").returncode == 0
    ]

    assert user == "uid=10001(match) gid=10001(match) groups=10001(match)"
    assert writable == ["/tmp", "/dev/shm"]  # noqa: S108 - inside of it


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("api", {"pytest", "pip", "setuptools", "flower", "skimage", "workers", "dev"}),
        ("worker", {"pytest", "pip", "setuptools", "flask", "gunicorn", "flower", "api", "dev"}),
        ("flower", {"pytest", "pip", "setuptools", "flask", "gunicorn", "numpy", "PIL", "api", "workers", "common"}),
    ],
)
def test_it_holds_what_runs_and_no_more(containers: dict[str, Container], name: str, packages: set[str]) -> None:
    look = f"import importlib.util as u; print([n for n in {sorted(packages)} if u.find_spec(n)])"

    done = containers[name].execute("python", "-c", look)

    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", ["api", "worker"])
def test_nothing_is_compiled_at_the_start(containers: dict[str, Container], name: str) -> None:
    look = (
        "import pathlib; app = pathlib.Path('/app'); "
        "print([str(p) for p in app.rglob('*.py') if not list((p.parent / '__pycache__').glob(p.stem + '.*.pyc'))])"
    )

    assert containers[name].execute("python", "-c", look).stdout == "[]\n"


def test_the_server_is_controlled_by_signals_alone(containers: dict[str, Container]) -> None:
    wait_until(containers["api"].is_healthy, "healthy", within_s=PATIENCE_S)

    sockets = containers["api"].execute("find", "/tmp", "-type", "s")  # noqa: S108 - inside of it

    assert (sockets.returncode, sockets.stdout) == (0, "")


def test_the_dashboard_asks_for_its_password(containers: dict[str, Container]) -> None:
    wait_until(containers["flower"].is_healthy, "flower is healthy", within_s=PATIENCE_S)

    without = requests.get("http://127.0.0.1:5555/api/workers", timeout=PATIENCE_S)

    assert without.status_code == 401


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


def test_the_index_is_prepared_by_the_jobs_command(containers: dict[str, Container]) -> None:
    done = containers["worker"].execute(*containers_of("Job", "prepare")[0]["command"])

    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["match prepare: the store is ready"])


def test_health_checks_fail_without_their_program(images: dict[str, Image], containers: dict[str, Container]) -> None:
    elsewhere = {"api": "PORT=1", "worker": "MATCH_WORKER_METRICS_PORT=1"}

    seen = {name: containers[name].execute("env", at, *images[name].healthcheck) for name, at in elsewhere.items()}

    assert {name: done.returncode != 0 and "refused" in done.stderr for name, done in seen.items()} == {
        "api": True,
        "worker": True,
    }


@pytest.mark.parametrize("name", ["api", "worker", "flower"])
def test_told_to_end_it_ends_well_and_in_time(containers: dict[str, Container], name: str) -> None:
    container = containers[name]
    wait_until(container.is_healthy, "healthy", within_s=PATIENCE_S)

    status = container.stop(within_s=PATIENCE_S)

    assert status == 0, container.log.read_text()
