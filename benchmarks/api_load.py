"""The API under load: adds, searches and pings by 1, 8 and 64 clients, what an add costs, a stream of lines, overload.

A real server with its Redis and a store of synthetic pictures, on loopback; no workers, so that the cores are the API's
and its clients'. Crowds and overload go through nginx with the shipped configuration, where there is an nginx; the cost
of an add and of a line is the API's own, asked directly. The clients are threads that write prepared bytes
(`parts/load.py` says why they are not locust's). Each figure that is asked for is a ratio of one run, of two sides
measured in turns, or a bound; times hold for a machine that does nothing else.

    PYTHONPATH=. python benchmarks/api_load.py [--quick] [--store embedded|elasticsearch] [--pictures FOLDER]
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
from parts.pipelines import ROOT, cpu_s, place, running, wait_for
from redis import Redis

from api.publisher import Publisher
from common.config import Settings
from common.images.signature import LENGTH
from common.queue.items import AddItem
from common.queue.jobs import SINGLE_QUEUE
from common.store.base import Record
from common.wiring import build_dependencies
from dev.ports import free_port
from dev.proxy import Proxy, why_not
from dev.redis_server import RedisServer
from support.tasks import enqueue

CORES = os.cpu_count() or 1
CROWDS = (1, 8, 64)
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

    def empty(self) -> None:
        """Forget the accepted work: a run begins with none."""
        with Redis.from_url(self.redis_url) as redis:
            redis.flushall()

    def most_memory_mib(self) -> float:
        """Return the most that its largest process has held."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        statuses = [Path(f"/proc/{child}/status").read_text() for child in children]
        return max(int(line.split()[1]) for text in statuses for line in text.splitlines() if "VmHWM" in line) / 1024


def main() -> None:
    options = arguments()
    seconds = 2.0 if options.quick else 10.0
    picture = next(iter(sorted(options.pictures.glob("*.jpg")))).read_bytes()
    with place(options.store) as store:
        where = {name: value.replace("NAME-ROUND", "api") for name, value in store.items()}
        print(f"store: {options.store}, {STORED:,} pictures; {CORES} cores\n")
        with api(where, processes=CORES) as served:
            fill(served, where)
            with behind_proxy(served) as proxied:
                crowds(proxied, picture, seconds)
                pings(proxied, picture, seconds)
                asked = [*overload(proxied, picture, seconds)]
        with api(where, processes=1) as served:
            asked += [cost_of_an_add(served, 300 if options.quick else 2000), *lines(served, options.quick)]
    row("what is asked for", "ask", "got", "verdict", head=True)
    for name, ask, got, holds in asked:
        row(name, ask, got, "holds" if holds else "**missed**")


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
    """Put nginx in front of the API."""
    if reason := why_not():
        print(f"without a proxy: {reason}\n")
        yield served
        return
    with tempfile.TemporaryDirectory() as folder, Proxy(Path(folder), [served.port]) as proxy:
        yield replace(served, port=proxy.port)


def fill(served: Api, store: Mapping[str, str]) -> None:
    """Store pictures nobody looks for: what is searched has to be walked through all the same."""
    parts = build_dependencies(Settings.from_env({**store, "REDIS_URL": served.redis_url}))
    parts.store.prepare()
    rng = np.random.default_rng(1)
    about = {"added": 0, "width": 500, "height": 400, "metadata": {"album": "cats"}}
    for start in range(0, STORED, 500):
        rows = rng.integers(-2, 3, (500, LENGTH), dtype=np.int8)
        parts.store.put(
            [
                Record(filepath=f"{start + place}", seq=start + place + 1, signatures=(signature,), **about)
                for place, signature in enumerate(rows)
            ]
        )
    parts.store.refresh()
    parts.close()


def crowds(served: Api, picture: bytes, seconds: float) -> None:
    """Print what few and many clients get of adds and searches."""
    row("clients", "request", "a second", "p50 ms", "p99 ms", "accepted or found", "refused", "timed out", head=True)
    kinds: dict[str, tuple[bytes, int]] = {
        "add by URL": (ADD, 202),
        "add by upload": (upload("/add", picture, filepath="a/b.jpg"), 202),
        "search by upload": (upload("/search", picture), 200),
        "search, original only": (upload("/search", picture, all_orientations="false"), 200),
    }
    for clients in CROWDS:
        for name, (sent, good) in kinds.items():
            found = load(served.port, [sent], clients=clients, seconds=seconds)
            row(
                f"{clients}",
                name,
                f"{found.rate(good):.0f}",
                f"{found.ms(0.5, good):.1f}",
                f"{found.ms(0.99, good):.1f}",
                f"{found.share(good):.1%}",
                f"{found.share(503, 429):.1%}",
                f"{found.share(TIMED_OUT):.1%}",
            )
            served.empty()
    print()


def pings(served: Api, picture: bytes, seconds: float) -> None:
    """Print what the shortest request takes, alone and beside others."""
    row("/ping", "a second", "p50 ms", "p99 ms", "not answered with 200", head=True)

    def tell(name: str, found: Load) -> None:
        row(
            name,
            f"{found.rate(200):.0f}",
            f"{found.ms(0.5, 200):.1f}",
            f"{found.ms(0.99, 200):.1f}",
            f"{1 - found.share(200):.1%}",
        )

    tell("1 client, alone", load(served.port, [PING], clients=1, seconds=seconds))
    with ThreadPoolExecutor(1) as pool:
        searches = pool.submit(load, served.port, [upload("/search", picture)], clients=64, seconds=seconds + 2)
        tell("1 client, beside 64 that search", load(served.port, [PING], clients=1, seconds=seconds))
        searches.result()
    eight = load(served.port, [PING], clients=8, seconds=seconds)
    tell("8 clients", eight)
    adds = load(served.port, [ADD], clients=8, seconds=seconds)
    print(
        f"\n8 clients in the same run: {adds.rate(202):.0f} adds/s, {adds.rate(202) / eight.rate(200):.2f} of /ping's"
    )
    served.empty()
    print()


def overload(served: Api, picture: bytes, seconds: float) -> Iterator[tuple[str, str, str, bool]]:
    """Print what far more clients than threads receive: a request that is not served is refused, and soon."""
    row(f"{OVERLOAD} clients", "200", "202", "429", "503", "timed out", "other", "p99 ms served", "refused", head=True)
    mixes: dict[str, Sequence[bytes]] = {
        "search": [upload("/search", picture)],
        "add, search, count, ping": [ADD, upload("/search", picture), request("GET", "/count"), PING],
    }
    for name, sent in mixes.items():
        found = load(served.port, sent, clients=OVERLOAD, seconds=seconds)
        shares = [found.share(status) for status in (200, 202, 429, 503, TIMED_OUT)]
        row(
            name,
            *(f"{share:.1%}" for share in shares),
            f"{1 - sum(shares):.1%}",
            f"{found.ms(0.99, 200, 202):.0f}",
            f"{found.ms(0.99, 429, 503):.0f}",
        )
        slowest, timed_out = found.ms(1, 429, 503), found.statuses[TIMED_OUT]
        yield (
            f"{OVERLOAD} clients, {name}: the slowest refusal",
            "<= 3,000 ms",
            f"{slowest:,.0f} ms",
            not slowest > 3000,
        )
        yield f"{OVERLOAD} clients, {name}: requests timed out", "0", f"{timed_out}", timed_out == 0
        served.empty()
    print()


def cost_of_an_add(served: Api, count: int) -> tuple[str, str, str, bool]:
    """Compare the CPU of an add with what it cannot do without: a request's way in and out, ledger and message."""
    settings = Settings.from_env({"REDIS_URL": served.redis_url})
    parts, publisher = build_dependencies(settings), Publisher(served.redis_url)
    job = AddItem(filepath="a/b.jpg", url=URL, metadata={"album": "cats"})

    def bare() -> None:
        publisher.send(enqueue(parts.ledger, [job], queue=SINGLE_QUEUE), queue=SINGLE_QUEUE)

    def request_ms(sent: bytes, good: int) -> float:
        before = cpu_s(served.pid)
        found = one_after_another(served.port, sent, count)
        assert set(found) == {good}, f"answered {set(found)}"
        return (cpu_s(served.pid) - before) * 1000 / count

    rounds = []
    for number in range(ROUNDS + 1):
        figures = request_ms(ADD, 202), request_ms(PING, 200), in_process_ms(bare, count)
        # The first one warms up.
        rounds += [figures] * bool(number)
        served.empty()
    add, ping, queued = (median(figures) for figures in zip(*rounds, strict=True))
    ratio = median(add / (ping + queued) for add, ping, queued in rounds)
    print(f"CPU ms: an add {add:.2f}, /ping {ping:.2f}, ledger and message alone {queued:.2f}\n")
    publisher.close()
    parts.close()
    return "CPU of an add, in what /ping, ledger and message take", "<= 1.5", f"{ratio:.2f}", ratio <= 1.5


def one_after_another(port: int, sent: bytes, count: int) -> list[int]:
    connection = Connection(port)
    statuses = [connection.send(sent) for _ in range(count)]
    connection.close()
    return statuses


def in_process_ms(call: Callable[[], None], count: int) -> float:
    before = process_time()
    for _ in range(count):
        call()
    return (process_time() - before) * 1000 / count


def lines(served: Api, quick: bool) -> Iterator[tuple[str, str, str, bool]]:  # noqa: FBT001 - from the command line
    """Send very many lines in a request; tell their rate, and what they take of memory."""
    count = LINES // 10 if quick else LINES
    # What serving such a request takes once is taken.
    stream(served, 2000)
    before = served.most_memory_mib()
    rate = stream(served, count)
    grown = served.most_memory_mib() - before
    yield f"NDJSON lines/s on one client, {count:,} in a request", ">= 3,000", f"{rate:,.0f}", rate >= 3000
    yield "memory that such a request takes", "flat", f"{grown:.1f} MiB more than at 2,000 lines", grown < 24


def stream(served: Api, count: int) -> float:
    """Return how many lines a second were accepted."""
    body = b"".join(json.dumps({"url": URL, "filepath": f"a/{number}.jpg"}).encode() + b"\n" for number in range(count))
    began = monotonic()
    post = partial(requests.post, headers={"Content-Type": "application/x-ndjson"}, timeout=600, stream=True)
    with post(f"http://127.0.0.1:{served.port}/add/batch", data=body) as answer:
        accepted = sum(json.loads(line)["status"] == "ok" for line in answer.iter_lines())
    seconds = monotonic() - began
    assert accepted == count, f"{count - accepted} lines were refused"
    served.empty()
    return count / seconds


def row(*cells: str, head: bool = False) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)
    if head:
        print("|" + "---|" * len(cells), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--pictures", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--store", choices=("elasticsearch", "embedded"), default="embedded")
    parser.add_argument("--quick", action="store_true", help="some seconds a figure, to see that it works")
    return parser.parse_args()


if __name__ == "__main__":
    main()
