"""A pipeline under measurement: its processes, the images sent to it, and the time and CPU until all are stored."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import local
from time import monotonic, sleep
from typing import Protocol

import requests
from celery import Celery

from common.config import Settings
from common.wiring import build_dependencies
from dev.elasticsearch_node import Node, why_not
from dev.ports import free_port
from dev.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
WORKERS = os.cpu_count() or 1
CLIENTS = 16
TIMEOUT_S = 600
WARM_UP = 64


@dataclass(frozen=True)
class Run:
    """The results of a pipeline: images a second, CPU milliseconds per image by process, and missing images.

    `busy_cores` counts all work on the machine.
    """

    name: str
    rate: float
    cpu_ms: Mapping[str, float]
    missing: int
    busy_cores: float

    @property
    def total_ms(self) -> float:
        return sum(self.cpu_ms.values())

    @property
    def worker_ms(self) -> float:
        return sum(ms for name, ms in self.cpu_ms.items() if name.startswith("worker"))


@contextmanager
def store_settings(store: str) -> Iterator[dict[str, str]]:
    """Start an Elasticsearch node or make a folder, and yield the settings of that store.

    The values contain NAME for the pipeline and ROUND for the round.
    """
    if store == "elasticsearch":
        with Node(heap_mib=1024) as node:
            yield {"ELASTICSEARCH_URL": node.url, "ELASTICSEARCH_INDEX": "NAME-ROUND"}
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield {"MATCH_STORE_URL": f"sqlite:///{folder}/NAME-ROUND.db"}


def named(store: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the settings of a pipeline's own index or file."""
    return {key: value.replace("NAME", name) for key, value in store.items()}


def match(
    urls: Mapping[str, str],
    store: Mapping[str, str],
    name: str,
    add: Callable[[str, Mapping[str, str]], None],
    *,
    workers: int = WORKERS,
    **settings: str,
) -> Run:
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        environment = named(store, name.lower().replace(", ", "-").replace(" ", "-")) | {"REDIS_URL": redis.url}
        with service(environment | settings, workers=workers) as (api, processes):
            pids = {name: process.pid for name, process in processes.items()} | {"redis": redis.pid}
            return measure(name, urls, Counter(environment), pids, partial(add, api))


@contextmanager
def service(
    settings: Mapping[str, str], *, workers: int = WORKERS, worker: Sequence[str] = ("-m", "workers")
) -> Iterator[tuple[str, dict[str, subprocess.Popen[bytes]]]]:
    """Start an API process and workers, which may fetch from this machine; yield the URL of the API and all processes.

    The settings contain REDIS_URL and the store. `worker` are the arguments of Python that start a worker.
    """
    port = free_port()
    environment = {
        "MATCH_FETCH_ALLOW": "127.0.0.1",
        "MATCH_API_HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKER_COUNT": "1",
        "MATCH_LOG_LEVEL": "warning",
        **settings,
    }
    commands = {"api": ["-m", "api"]} | {f"worker {n}": [*worker, "-n", f"w{n}"] for n in range(workers)}
    with running(commands, environment) as processes:
        wait_for(f"http://127.0.0.1:{port}/readyz")
        wait_for_workers(Celery(broker=settings["REDIS_URL"]), workers)
        yield f"http://127.0.0.1:{port}", processes


class Count(Protocol):
    """Counter of the images that a pipeline has stored."""

    def count(self) -> int:
        """Return the number of stored images."""

    def missing(self, filepaths: Collection[str]) -> int:
        """Return the number of filepaths that are not stored."""


class Counter:
    """Counter of the images in one of Match's stores."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.store = build_dependencies(Settings.from_env(environment)).store
        self.store.prepare()

    def count(self) -> int:
        self.store.refresh()
        return self.store.count()

    def missing(self, filepaths: Collection[str]) -> int:
        stored: set[str] = set()
        while page := self.store.filepaths(offset=len(stored), limit=5000).filepaths:
            stored.update(page)
        return len(set(filepaths) - stored)


def measure(
    name: str,
    urls: Mapping[str, str],
    counter: Count,
    pids: Mapping[str, int],
    send: Callable[[Mapping[str, str]], None],
) -> Run:
    """Send all images, wait until all are stored, and count the missing ones."""
    warm = dict(list(urls.items())[: min(WARM_UP, len(urls) // 4)])
    send(warm)
    wait_for_count(counter, len(warm))
    before = {process: cpu_s(pid) for process, pid in pids.items()}
    busy_before, started = busy_s(), monotonic()
    rest = {filepath: url for filepath, url in urls.items() if filepath not in warm}
    send(rest)
    wait_for_count(counter, len(urls))
    seconds = monotonic() - started
    cpu = {process: (cpu_s(pid) - before[process]) * 1000 / len(rest) for process, pid in pids.items()}
    busy_cores = (busy_s() - busy_before) / seconds
    return Run(name, len(rest) / seconds, cpu, counter.missing(urls), busy_cores)


def add_all(url: str, items: Mapping[str, str]) -> None:
    thread = local()

    def add(item: tuple[str, str]) -> None:
        if not hasattr(thread, "session"):
            thread.session = requests.Session()
        thread.session.post(f"{url}/add", data={"filepath": item[0], "url": item[1]}, timeout=120).raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(add, items.items()))


def add_batch(url: str, items: Mapping[str, str]) -> None:
    lines = "".join(json.dumps({"filepath": filepath, "url": source}) + "\n" for filepath, source in items.items())
    headers = {"Content-Type": "application/x-ndjson"}
    with requests.post(f"{url}/add/batch", data=lines.encode(), headers=headers, timeout=600, stream=True) as response:
        response.raise_for_status()
        outcomes = [json.loads(line)["status"] for line in response.iter_lines()]
    assert outcomes.count("fail") == 0, f"{outcomes.count('fail')} lines were rejected"


def wait_for_count(counter: Count, count: int) -> None:
    deadline = monotonic() + TIMEOUT_S
    while counter.count() < count and monotonic() < deadline:
        sleep(0.2)


def wait_for_workers(client: Celery, count: int) -> None:
    deadline = monotonic() + 60
    while len(client.control.ping(timeout=0.5)) < count:
        assert monotonic() < deadline, "the workers do not reply to pings"


def wait_for(url: str) -> None:
    deadline = monotonic() + 60
    while monotonic() < deadline:
        try:
            requests.get(url, timeout=5)
        except (requests.ConnectionError, requests.Timeout):
            sleep(0.1)
        else:
            return
    message = f"{url} does not answer"
    raise SystemExit(message)


@contextmanager
def image_server(folder: Path) -> Iterator[str]:
    port = free_port()
    with running({"images": ["benchmarks/peers/images.py", str(folder), str(port)]}, {}):
        wait_for(f"http://127.0.0.1:{port}/{next(folder.glob('*.jpg')).name}")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks" / "peers")])
    processes = {
        name: subprocess.Popen(  # noqa: S603 - programs of this project
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | environment,
            start_new_session=True,
        )
        for name, command in commands.items()
    }
    try:
        yield processes
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            process.wait(90)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of the process and all its living descendants."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / TICKS
    # A child belongs to the thread that started it.
    children = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return own + sum(cpu_s(int(child)) for child in children)


def busy_s() -> float:
    """Return the CPU seconds that the cores have been busy since boot."""
    user, nice, system, _idle, _waiting, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / TICKS


def arguments(description: str | None, *, images: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--photos", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--rounds", type=int, default=3)
    stores = ("elasticsearch", "embedded")
    parser.add_argument("--store", choices=stores, default=stores[1] if why_not() else stores[0])
    return parser.parse_args()
