"""Ingestion by URL from a server with 50 ms latency: Match, a naive port of it, and dsys/match's own way.

Each runs on all cores, one after another, on the same pictures, into the same embedded store. CPU is that of every
process of the service (API, workers, Redis), read from the kernel; the picture server and the client are nobody's.

    python benchmarks/ingest.py [--pictures FOLDER] [--images N]
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import local
from time import monotonic, process_time, sleep

import requests

from common.images import Limits, decode
from common.signature import sign
from common.store.sqlite import SqliteStore
from dev.redis_server import RedisServer, free_port

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
WORKERS = os.cpu_count() or 1
CLIENTS = 16
GIVE_UP_S = 600


@dataclass(frozen=True)
class Run:
    """One pipeline's figures: images a second, CPU milliseconds an image by process, images missing at the end."""

    name: str
    rate: float
    cpu_ms: Mapping[str, float]
    missing: int

    @property
    def total_ms(self) -> float:
        return sum(self.cpu_ms.values())


def main() -> None:
    options = arguments()
    names = sorted(path.name for path in options.pictures.glob("*.jpg"))
    with picture_server(options.pictures) as url:
        urls = {
            f"{number:06}-{names[number % len(names)]}": f"{url}/{names[number % len(names)]}"
            for number in range(options.images)
        }
        # The slow ones get fewer images: their rate is steady from the first second.
        few = dict(list(urls.items())[: max(len(names), options.images // 4)])
        runs = [match(urls), naive(few), dsys(few)]
    report(runs, decode_and_sign_ms(options.pictures))


def match(urls: Mapping[str, str]) -> Run:
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        port = free_port()
        environment = {
            "REDIS_URL": redis.url,
            "MATCH_STORE_URL": f"sqlite:///{home}/match.db",
            "MATCH_FETCH_ALLOW": "127.0.0.1",
            "MATCH_API_HOST": "127.0.0.1",
            "PORT": str(port),
            "WORKER_COUNT": "1",
            "MATCH_LOG_LEVEL": "warning",
        }
        commands = {"api": ["-m", "api"]} | {f"worker {n}": ["-m", "workers", "-n", f"w{n}"] for n in range(WORKERS)}
        with running(commands, environment) as processes:
            wait_for(f"http://127.0.0.1:{port}/readyz")
            pids = {name: process.pid for name, process in processes.items()} | {"redis": redis.pid}
            store = SqliteStore(Path(home) / "match.db")
            return measure("Match", urls, store, pids, lambda items: add_all(f"http://127.0.0.1:{port}/add", items))


def naive(urls: Mapping[str, str]) -> Run:
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        environment = {"REDIS_URL": redis.url, "PEER_STORE": f"{home}/match.db"}
        store = SqliteStore(Path(home) / "match.db")
        store.prepare()
        command = ["-m", "celery", "-A", "naive", "worker", "-c", str(WORKERS), "-l", "warning"]
        with running({"worker": command}, environment) as processes:
            from celery import Celery  # noqa: PLC0415 - only this peer's client needs it

            client = Celery(broker=redis.url)
            while not client.control.ping(timeout=0.5):
                sleep(0.2)

            def send(items: Mapping[str, str]) -> None:
                for filepath, url in items.items():
                    client.send_task("naive.add", args=(filepath, url), ignore_result=True)

            pids = {"workers": processes["worker"].pid, "redis": redis.pid}
            return measure("naive port", urls, store, pids, send)


def dsys(urls: Mapping[str, str]) -> Run:
    with tempfile.TemporaryDirectory() as home:
        port = free_port()
        store = SqliteStore(Path(home) / "match.db")
        store.prepare()
        command = ["-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{port}", "--no-control-socket", "dsys:app"]
        with running({"api": command}, {"PEER_STORE": f"{home}/match.db"}) as processes:
            wait_for(f"http://127.0.0.1:{port}/")
            pids = {"api": processes["api"].pid}
            return measure(
                "dsys/match's way", urls, store, pids, lambda items: add_all(f"http://127.0.0.1:{port}/add", items)
            )


def measure(name: str, urls: Mapping[str, str], store: SqliteStore, pids: Mapping[str, int], send) -> Run:  # noqa: ANN001 - a function of urls
    """Send all, wait until all are stored, and read the store for what is missing."""
    warm = dict(list(urls.items())[:64])
    send(warm)
    wait_for_count(store, len(warm))
    before = {process: cpu_s(pid) for process, pid in pids.items()}
    started = monotonic()
    rest = {filepath: url for filepath, url in urls.items() if filepath not in warm}
    send(rest)
    wait_for_count(store, len(urls))
    seconds = monotonic() - started
    cpu = {process: (cpu_s(pid) - before[process]) * 1000 / len(rest) for process, pid in pids.items()}
    stored = set(store.filepaths(offset=0, limit=len(urls) + 1))
    store.close()
    return Run(name, len(rest) / seconds, cpu, len(set(urls) - stored))


def add_all(url: str, items: Mapping[str, str]) -> None:
    thread = local()

    def add(item: tuple[str, str]) -> None:
        if not hasattr(thread, "session"):
            thread.session = requests.Session()
        thread.session.post(url, data={"filepath": item[0], "url": item[1]}, timeout=120).raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(add, items.items()))


def wait_for_count(store: SqliteStore, count: int) -> None:
    deadline = monotonic() + GIVE_UP_S
    while store.count() < count and monotonic() < deadline:
        sleep(0.05)


def wait_for(url: str) -> None:
    deadline = monotonic() + 60
    while monotonic() < deadline:
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
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


def report(runs: Sequence[Run], compute_ms: float) -> None:
    ours, port, original = runs
    print(f"{'':18} {'images/s':>9} {'CPU ms/image':>13} {'missing':>8}   by process")
    for run in runs:
        parts = ", ".join(f"{name} {ms:.1f}" for name, ms in run.cpu_ms.items())
        print(f"{run.name:18} {run.rate:9.0f} {run.total_ms:13.1f} {run.missing:8}   {parts}")
    worker_ms = sum(ms for name, ms in ours.cpu_ms.items() if name.startswith("worker"))
    rows = [
        ("rate against the naive port", ours.rate / port.rate, ">= 4"),
        ("rate against dsys/match's way", ours.rate / original.rate, ">= 2.5"),
        ("CPU an image against dsys/match's way", ours.total_ms / original.total_ms, "<= 0.6"),
        (f"worker CPU against decode + signature ({compute_ms:.2f} ms)", worker_ms / compute_ms, "<= 3"),
        ("accepted images missing in the store", ours.missing, "0"),
    ]
    print()
    for name, value, ask in rows:
        print(f"{name:58} {value:7.2f}   ask {ask}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--pictures", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--images", type=int, default=4000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
