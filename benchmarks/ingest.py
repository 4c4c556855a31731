"""Ingestion by URL from a server with 50 ms latency: Match, a naive port of it, and dsys/match's own way.

Each runs on all cores, one after another, on the same pictures, into the same store: a real Elasticsearch node where
one can be started, else the embedded one. Match runs twice: single adds (`POST /add`, 16 clients) as the others have
them, and a batch (`POST /add/batch`, one client), which only it has. CPU is that of every process of the service (API,
workers, Redis), read from the kernel; the picture server and the client are nobody's.

    python benchmarks/ingest.py [--pictures FOLDER] [--images N] [--rounds N] [--store elasticsearch|embedded]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from threading import local
from time import monotonic, process_time, sleep
from typing import NamedTuple

import requests
from celery import Celery
from elasticsearch import Elasticsearch

from common.config import Settings
from common.images import Limits, decode
from common.signature import sign
from common.wiring import wire
from dev.elasticsearch_node import Node, why_not
from dev.ports import free_port
from dev.redis_server import RedisServer

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
WORKERS = os.cpu_count() or 1
CLIENTS = 16
GIVE_UP_S = 600


@dataclass(frozen=True)
class Run:
    """One pipeline's figures: images a second, CPU milliseconds an image by process, images missing at the end.

    `busy_cores` are those of the whole machine, whoever kept them busy.
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


def main() -> None:
    options = arguments(__doc__, images=3000)
    names = sorted(path.name for path in options.pictures.glob("*.jpg"))
    with picture_server(options.pictures) as url, place(options.store) as store:
        urls = {
            f"{number:06}-{names[number % len(names)]}": f"{url}/{names[number % len(names)]}"
            for number in range(options.images)
        }
        # The slow ones get fewer images: their rate is steady from the first second.
        few = dict(list(urls.items())[: max(len(names), options.images // 4)])
        rounds = []
        for number in range(options.rounds):
            place_of_round = {name: value.replace("ROUND", str(number)) for name, value in store.items()}
            rounds.append(
                Round(
                    match(urls, place_of_round, "Match", add_all),
                    match(urls, place_of_round, "Match, a batch", add_batch),
                    naive(few, place_of_round),
                    dsys(few, place_of_round),
                    decode_and_sign_ms(options.pictures),
                )
            )
    print(f"store: {options.store}")
    report(rounds)


@contextmanager
def place(store: str) -> Iterator[dict[str, str]]:
    """Yield the settings that name the store: a real Elasticsearch node, or a file."""
    if store == "elasticsearch":
        with Node(heap_mib=1024) as node:
            yield {"ELASTICSEARCH_URL": node.url, "ELASTICSEARCH_INDEX": "NAME-ROUND"}
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield {"MATCH_STORE_URL": f"sqlite:///{folder}/NAME-ROUND.db"}


def named(store: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the settings of a pipeline's own part of the store."""
    return {key: value.replace("NAME", name) for key, value in store.items()}


def match(
    urls: Mapping[str, str],
    place: Mapping[str, str],
    name: str,
    add: Callable[[str, Mapping[str, str]], None],
    *,
    workers: int = WORKERS,
    **settings: str,
) -> Run:
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        port = free_port()
        environment = named(place, name.lower().replace(", ", "-").replace(" ", "-")) | {
            "REDIS_URL": redis.url,
            "MATCH_FETCH_ALLOW": "127.0.0.1",
            "MATCH_API_HOST": "127.0.0.1",
            "PORT": str(port),
            "WORKER_COUNT": "1",
            "MATCH_LOG_LEVEL": "warning",
        }
        commands = {"api": ["-m", "api"]} | {f"worker {n}": ["-m", "workers", "-n", f"w{n}"] for n in range(workers)}
        with running(commands, environment | settings) as processes:
            wait_for(f"http://127.0.0.1:{port}/readyz")
            wait_for_workers(Celery(broker=redis.url), workers)
            pids = {name: process.pid for name, process in processes.items()} | {"redis": redis.pid}
            return measure(name, urls, Counter(environment), pids, partial(add, f"http://127.0.0.1:{port}"))


def naive(urls: Mapping[str, str], place: Mapping[str, str]) -> Run:
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        environment = named(place, "naive") | {"REDIS_URL": redis.url}
        counter = Counter(environment)
        command = ["-m", "celery", "-A", "naive", "worker", "-c", str(WORKERS), "-l", "warning"]
        with running({"worker": command}, environment) as processes:
            client = Celery(broker=redis.url)
            wait_for_workers(client, 1)

            def send(items: Mapping[str, str]) -> None:
                for filepath, url in items.items():
                    client.send_task("naive.add", args=(filepath, url), ignore_result=True)

            pids = {"workers": processes["worker"].pid, "redis": redis.pid}
            return measure("naive port", urls, counter, pids, send)


def dsys(urls: Mapping[str, str], place: Mapping[str, str]) -> Run:
    port = free_port()
    environment = named(place, "dsys")
    counter = RawCounter(environment) if "ELASTICSEARCH_URL" in place else Counter(environment)
    command = ["-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{port}", "--no-control-socket", "dsys:app"]
    with running({"api": command}, environment) as processes:
        wait_for(f"http://127.0.0.1:{port}/")
        pids = {"api": processes["api"].pid}
        return measure("dsys/match's way", urls, counter, pids, partial(add_all, f"http://127.0.0.1:{port}"))


class Counter:
    """What a pipeline on one of our stores has stored."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.store = wire(Settings.from_env(environment)).store
        self.store.prepare()

    def count(self) -> int:
        self.store.refresh()
        return self.store.count()

    def missing(self, filepaths: Iterable[str]) -> int:
        stored: set[str] = set()
        while page := self.store.filepaths(offset=len(stored), limit=5000).filepaths:
            stored.update(page)
        return len(set(filepaths) - stored)


class RawCounter:
    """What dsys/match's way has stored in its own index."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.client = Elasticsearch(environment["ELASTICSEARCH_URL"])
        self.index = environment["ELASTICSEARCH_INDEX"]

    def count(self) -> int:
        self.client.indices.refresh(index=self.index, ignore_unavailable=True)
        return int(self.client.count(index=self.index, ignore_unavailable=True)["count"])

    def missing(self, filepaths: Collection[str]) -> int:
        return len(filepaths) - self.count()


def measure(
    name: str,
    urls: Mapping[str, str],
    counter: Counter | RawCounter,
    pids: Mapping[str, int],
    send: Callable[[Mapping[str, str]], None],
) -> Run:
    """Send all, wait until all are stored, and read the store for what is missing."""
    warm = dict(list(urls.items())[:64])
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
    with requests.post(f"{url}/add/batch", data=lines.encode(), headers=headers, timeout=600, stream=True) as answer:
        answer.raise_for_status()
        outcomes = [json.loads(line)["status"] for line in answer.iter_lines()]
    assert outcomes.count("fail") == 0, f"{outcomes.count('fail')} lines were refused"


def wait_for_count(counter: Counter | RawCounter, count: int) -> None:
    deadline = monotonic() + GIVE_UP_S
    while counter.count() < count and monotonic() < deadline:
        sleep(0.2)


def wait_for_workers(client: Celery, count: int) -> None:
    deadline = monotonic() + 60
    while len(client.control.ping(timeout=0.5)) < count:
        assert monotonic() < deadline, "the workers do not answer"


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
def picture_server(folder: Path) -> Iterator[str]:
    port = free_port()
    with running({"pictures": ["benchmarks/peers/pictures.py", str(folder), str(port)]}, {}):
        wait_for(f"http://127.0.0.1:{port}/{next(folder.glob('*.jpg')).name}")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks" / "peers")])
    processes = {
        name: subprocess.Popen(  # noqa: S603 - our own programs
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
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_s(int(child)) for child in children)


def busy_s() -> float:
    """Return the CPU seconds that the machine's cores have been busy, since its start."""
    user, nice, system, _idle, _waiting, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / TICKS


def decode_and_sign_ms(folder: Path) -> float:
    """Return the CPU milliseconds that a picture's decoding and signature alone take in this process."""
    datas = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    rounds = []
    for _ in range(3):
        started = process_time()
        for data in datas:
            sign(decode(data, Limits()).pixels)
        rounds.append((process_time() - started) * 1000 / len(datas))
    return median(rounds)


class Round(NamedTuple):
    match: Run
    batch: Run
    naive: Run
    dsys: Run
    compute_ms: float


def report(rounds: Sequence[Round]) -> None:
    print(f"{'':18} {'images/s':>9} {'CPU ms/image':>13} {'missing':>8}   by process")
    for run in (run for each in rounds for run in (each.match, each.batch, each.naive, each.dsys)):
        parts = ", ".join(f"{name} {ms:.1f}" for name, ms in run.cpu_ms.items())
        print(f"{run.name:18} {run.rate:9.0f} {run.total_ms:13.1f} {run.missing:8}   {parts}")
    rows: list[tuple[str, str, Callable[[Round], float]]] = [
        ("rate against the naive port", ">= 4", lambda each: each.match.rate / each.naive.rate),
        ("rate against dsys/match's way", ">= 2.5", lambda each: each.match.rate / each.dsys.rate),
        ("CPU an image against dsys/match's way", "<= 0.6", lambda each: each.match.total_ms / each.dsys.total_ms),
        ("worker CPU against decode + signature", "<= 3", lambda each: each.match.worker_ms / each.compute_ms),
        ("a batch: rate against single adds", ">= 1.3", lambda each: each.batch.rate / each.match.rate),
        ("a batch: rate against dsys/match's way", ">= 2.5", lambda each: each.batch.rate / each.dsys.rate),
        ("a batch: CPU against dsys/match's way", "<= 0.6", lambda each: each.batch.total_ms / each.dsys.total_ms),
        ("a batch: worker CPU against decode + signature", "<= 3", lambda each: each.batch.worker_ms / each.compute_ms),
        ("accepted images missing in the store", "0", lambda each: each.match.missing + each.batch.missing),
    ]
    print(f"\n{'median of the rounds (each round)':60}")
    for name, ask, value_of in rows:
        values = [value_of(each) for each in rounds]
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:46} {median(values):6.2f}   ask {ask:7} ({each})")
    # What else runs on the machine only ever adds to CPU times: the least of each side is nearest to what it costs.
    least = min(each.match.total_ms for each in rounds) / min(each.dsys.total_ms for each in rounds)
    compute = min(each.match.worker_ms for each in rounds) / min(each.compute_ms for each in rounds)
    print(
        f"\nfrom each side's least: CPU against dsys/match's way {least:.2f}, worker CPU against compute {compute:.2f}"
    )


def arguments(description: str | None, *, images: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--pictures", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--rounds", type=int, default=3)
    stores = ("elasticsearch", "embedded")
    parser.add_argument("--store", choices=stores, default=stores[1] if why_not() else stores[0])
    return parser.parse_args()


if __name__ == "__main__":
    main()
