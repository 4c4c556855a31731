"""The API under load: throughput and latency by number of clients, overload, the CPU of an add, and long batches.

A real server with its Redis and a store of synthetic signatures, on loopback. No worker runs: API and clients have the
cores to themselves. Loads by number of clients and overload go through nginx with the shipped configuration if nginx is
installed. The costs of an add and of a batch line are measured without it. The clients are threads that write prepared
bytes; `parts/load.py` has the reason against locust. A target is a bound, or a ratio of two sides that one run measures
alternately. Times are valid for a machine without other work.

    PYTHONPATH=.:tests python benchmarks/api_load.py [--quick] [--store embedded|elasticsearch] [--photos FOLDER]
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic, process_time
from urllib.parse import urlencode

import numpy as np
import requests
from parts.load import TIMED_OUT, Connection, Load, load, request, upload
from parts.pipelines import ROOT, cpu_s, running, store_settings, wait_for
from redis import Redis

from common.config import Settings
from common.images.signature import LENGTH
from common.queue.items import AddItem
from common.queue.jobs import SINGLE_QUEUE
from common.queue.publisher import Publisher
from common.store.base import Record
from common.wiring import build_dependencies
from dev.ports import free_port
from dev.proxy import Proxy, why_not
from dev.redis_server import RedisServer
from support.tasks import enqueue

CORES = os.cpu_count() or 1
CLIENTS = (1, 8, 64)
OVERLOAD = 256
LINES = 50_000
STORED = 10_000
URL = "http://example.org/a.jpg"
PING = request("GET", "/ping")
FORM = urlencode({"filepath": "a/b.jpg", "url": URL, "metadata": '{"album": "cats"}'}).encode()
ADD = request("POST", "/add", FORM)
ROUNDS = 5


@dataclass(frozen=True)
class Api:
    """A running API: its port, its process and its Redis."""

    port: int
    pid: int
    redis_url: str

    def flush(self) -> None:
        """Delete the accepted tasks, so that the next measurement starts without any."""
        with Redis.from_url(self.redis_url) as redis:
            redis.flushall()

    def peak_memory_mib(self) -> float:
        """Return the peak resident memory of its largest process."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        statuses = [Path(f"/proc/{child}/status").read_text() for child in children]
        return max(int(line.split()[1]) for text in statuses for line in text.splitlines() if "VmHWM" in line) / 1024


def main() -> None:
    options = arguments()
    seconds = 2.0 if options.quick else 10.0
    image = next(iter(sorted(options.photos.glob("*.jpg")))).read_bytes()
    with store_settings(options.store) as store:
        settings = {name: value.replace("NAME-ROUND", "api") for name, value in store.items()}
        print(f"store: {options.store}, {STORED:,} images; {CORES} cores\n")
        with api(settings, processes=CORES) as served:
            fill(served, settings)
            with behind_proxy(served) as proxied:
                report_loads(proxied, image, seconds)
                report_pings(proxied, image, seconds)
                results = [*overload(proxied, image, seconds)]
        with api(settings, processes=1) as served:
            results += [add_cost(served, 300 if options.quick else 2000), *batch(served, options.quick)]
    row("measure", "target", "measured", "verdict", head=True)
    for name, target, measured, is_met in results:
        row(name, target, measured, "ok" if is_met else "**missed**")


@contextmanager
def api(store: Mapping[str, str], *, processes: int) -> Iterator[Api]:
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        port = free_port()
        environment = {
            **store,
            "REDIS_URL": redis.url,
            "MATCH_API_HOST": "127.0.0.1",
            "PORT": f"{port}",
            "WORKER_COUNT": f"{processes}",
            "MATCH_LOG_LEVEL": "error",
        }
        with running({"api": ["-m", "api"]}, environment) as started:
            wait_for(f"http://127.0.0.1:{port}/readyz")
            yield Api(port, started["api"].pid, redis.url)


@contextmanager
def behind_proxy(served: Api) -> Iterator[Api]:
    """Start nginx in front of the API."""
    if reason := why_not():
        print(f"without a proxy: {reason}\n")
        yield served
        return
    with tempfile.TemporaryDirectory() as folder, Proxy(Path(folder), [served.port]) as proxy:
        yield replace(served, port=proxy.port)


def fill(served: Api, store: Mapping[str, str]) -> None:
    """Store random signatures: each search scans them, and none matches."""
    dependencies = build_dependencies(Settings.from_env({**store, "REDIS_URL": served.redis_url}))
    dependencies.store.prepare()
    rng = np.random.default_rng(1)
    details = {"added": 0, "width": 500, "height": 400, "metadata": {"album": "cats"}}
    for start in range(0, STORED, 500):
        rows = rng.integers(-2, 3, (500, LENGTH), dtype=np.int8)
        dependencies.store.put(
            [
                Record(filepath=f"{start + index}", seq=start + index + 1, signatures=(signature,), **details)
                for index, signature in enumerate(rows)
            ]
        )
    dependencies.store.refresh()
    dependencies.close()


def report_loads(served: Api, image: bytes, seconds: float) -> None:
    """Print throughput and latency of adds and searches by number of clients."""
    row("clients", "request", "requests/s", "p50 ms", "p99 ms", "succeeded", "rejected", "timed out", head=True)
    kinds: dict[str, tuple[bytes, int]] = {
        "add by URL": (ADD, 202),
        "add by upload": (upload("/add", image, filepath="a/b.jpg"), 202),
        "search by upload": (upload("/search", image), 200),
        "search, original only": (upload("/search", image, all_orientations="false"), 200),
    }
    for clients in CLIENTS:
        for name, (data, success) in kinds.items():
            result = load(served.port, [data], clients=clients, seconds=seconds)
            row(
                f"{clients}",
                name,
                f"{result.rate(success):.0f}",
                f"{result.ms(0.5, success):.1f}",
                f"{result.ms(0.99, success):.1f}",
                f"{result.share(success):.1%}",
                f"{result.share(503, 429):.1%}",
                f"{result.share(TIMED_OUT):.1%}",
            )
            served.flush()
    print()


def report_pings(served: Api, image: bytes, seconds: float) -> None:
    """Print throughput and latency of the cheapest request, without and with other load."""
    row("/ping", "requests/s", "p50 ms", "p99 ms", "status other than 200", head=True)

    def report(name: str, result: Load) -> None:
        row(
            name,
            f"{result.rate(200):.0f}",
            f"{result.ms(0.5, 200):.1f}",
            f"{result.ms(0.99, 200):.1f}",
            f"{1 - result.share(200):.1%}",
        )

    report("1 client", load(served.port, [PING], clients=1, seconds=seconds))
    with ThreadPoolExecutor(1) as pool:
        searches = pool.submit(load, served.port, [upload("/search", image)], clients=64, seconds=seconds + 2)
        report("1 client, with 64 that search", load(served.port, [PING], clients=1, seconds=seconds))
        searches.result()
    eight = load(served.port, [PING], clients=8, seconds=seconds)
    report("8 clients", eight)
    adds = load(served.port, [ADD], clients=8, seconds=seconds)
    print(f"\n8 clients in the same run: {adds.rate(202):.0f} adds/s, {adds.rate(202) / eight.rate(200):.2f} x /ping's")
    served.flush()
    print()


def overload(served: Api, image: bytes, seconds: float) -> Iterator[tuple[str, str, str, bool]]:
    """Print the responses to far more clients than threads: each request is served or soon rejected."""
    row(
        f"{OVERLOAD} clients",
        *("200", "202", "429", "503", "timed out", "other", "p99 ms of served", "p99 ms of rejected"),
        head=True,
    )
    mixes: dict[str, Sequence[bytes]] = {
        "search": [upload("/search", image)],
        "add, search, count, ping": [ADD, upload("/search", image), request("GET", "/count"), PING],
    }
    for name, mix in mixes.items():
        result = load(served.port, mix, clients=OVERLOAD, seconds=seconds)
        shares = [result.share(status) for status in (200, 202, 429, 503, TIMED_OUT)]
        row(
            name,
            *(f"{share:.1%}" for share in shares),
            f"{1 - sum(shares):.1%}",
            f"{result.ms(0.99, 200, 202):.0f}",
            f"{result.ms(0.99, 429, 503):.0f}",
        )
        slowest, timed_out = result.ms(1, 429, 503), result.statuses[TIMED_OUT]
        yield (
            f"{OVERLOAD} clients, {name}: slowest rejection",
            "<= 3,000 ms",
            f"{slowest:,.0f} ms",
            not slowest > 3000,
        )
        yield f"{OVERLOAD} clients, {name}: requests timed out", "0", f"{timed_out}", timed_out == 0
        served.flush()
    print()


def add_cost(served: Api, count: int) -> tuple[str, str, str, bool]:
    """Compare the CPU of an add with its unavoidable share: a minimal request, the ledger entry and the message."""
    settings = Settings.from_env({"REDIS_URL": served.redis_url})
    dependencies, publisher = build_dependencies(settings), Publisher(served.redis_url)
    job = AddItem(filepath="a/b.jpg", url=URL, metadata={"album": "cats"})

    def enqueue_job() -> None:
        publisher.send(enqueue(dependencies.ledger, [job], queue=SINGLE_QUEUE), queue=SINGLE_QUEUE)

    def request_ms(data: bytes, success: int) -> float:
        before = cpu_s(served.pid)
        statuses = set(send_in_sequence(served.port, data, count))
        assert statuses == {success}, f"responses have the statuses {statuses}"
        return (cpu_s(served.pid) - before) * 1000 / count

    rounds = []
    for number in range(ROUNDS + 1):
        cpu_ms = request_ms(ADD, 202), request_ms(PING, 200), in_process_ms(enqueue_job, count)
        # The first round is the warm-up.
        rounds += [cpu_ms] * bool(number)
        served.flush()
    add, ping, queued = (median(cpu_ms) for cpu_ms in zip(*rounds, strict=True))
    ratio = median(add / (ping + queued) for add, ping, queued in rounds)
    print(f"CPU ms: add {add:.2f}, /ping {ping:.2f}, ledger and message {queued:.2f}\n")
    publisher.close()
    dependencies.close()
    return "CPU of an add / CPU of /ping, ledger and message", "<= 1.5", f"{ratio:.2f}", ratio <= 1.5


def send_in_sequence(port: int, data: bytes, count: int) -> list[int]:
    connection = Connection(port)
    statuses = [connection.send(data) for _ in range(count)]
    connection.close()
    return statuses


def in_process_ms(call: Callable[[], None], count: int) -> float:
    before = process_time()
    for _ in range(count):
        call()
    return (process_time() - before) * 1000 / count


def batch(served: Api, quick: bool) -> Iterator[tuple[str, str, str, bool]]:  # noqa: FBT001 - from the command line
    """Send a long batch; return its rate and the memory that it needs beyond a short one."""
    count = LINES // 10 if quick else LINES
    # A short batch first: it allocates the memory that a batch of any length needs.
    send_batch(served, 2000)
    before = served.peak_memory_mib()
    rate = send_batch(served, count)
    growth_mib = served.peak_memory_mib() - before
    yield f"NDJSON lines/s of one client, {count:,} in a request", ">= 3,000", f"{rate:,.0f}", rate >= 3000
    yield "memory of that request beyond one of 2,000 lines", "< 24 MiB", f"{growth_mib:.1f} MiB", growth_mib < 24


def send_batch(served: Api, count: int) -> float:
    """Return the number of lines accepted a second."""
    body = b"".join(json.dumps({"url": URL, "filepath": f"a/{number}.jpg"}).encode() + b"\n" for number in range(count))
    began = monotonic()
    post = partial(requests.post, headers={"Content-Type": "application/x-ndjson"}, timeout=600, stream=True)
    with post(f"http://127.0.0.1:{served.port}/add/batch", data=body) as response:
        accepted = sum(json.loads(line)["status"] == "ok" for line in response.iter_lines())
    seconds = monotonic() - began
    assert accepted == count, f"{count - accepted} lines were rejected"
    served.flush()
    return count / seconds


def row(*cells: str, head: bool = False) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)
    if head:
        print("|" + "---|" * len(cells), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--photos", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--store", choices=("elasticsearch", "embedded"), default="embedded")
    parser.add_argument("--quick", action="store_true", help="measure each value for two seconds only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
