"""Batches of searches by stored images, against single requests in the same run; and single searches beside batches.

    PYTHONPATH=.:tests python benchmarks/search_batch.py [IMAGES] [--store embedded|elasticsearch] [--lines N]
                                                         [--searches N]

A real server with one process, its Redis and a store of signatures, on loopback. `parts/collection.py` describes the
signatures. One client sends the same filepaths in the mode `fast`, with all orientations and with one: first singly on
one connection, then as batches of `--lines`. The two sides take turns, and each ratio is that of one round. CPU is that
of the API's process, and of the search server if there is one. At last one client searches singly, first without other
load and then beside another client's searches of both kinds.

A round has 1,000 searches of each side on the embedded store, and 200 on a search server, where they take longer.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event
from time import monotonic, sleep

import numpy as np
import requests
from parts.collection import collection, filepath
from parts.load import Connection, Load, load, request
from parts.pipelines import ROOT, cpu_s, store_settings
from parts.segments import await_merges
from parts.serving import api, fill, named

from common.store.elastic.cluster import Cluster
from common.store.elastic.connection import Connection as ServerConnection

ROUNDS = 5
# Of the index, or of the file.
NAME = "batches"
BESIDE_S = 10.0
# The server renews its statistics of its process once a second.
SERVER_STATS_S = 1.1
TARGETS = {"embedded": 4.0, "elasticsearch": 1.3}
# Of each side in a round. A server takes several times as long as the embedded store.
SEARCHES = {"embedded": 1000, "elasticsearch": 200}
PHOTOS = ROOT.parent / "shared" / "data" / "photos"


@dataclass(frozen=True)
class Served:
    """A running API with its search server, if it has one; the lines of its batches, and the least ratio of rates."""

    port: int
    pid: int
    server: Cluster | None
    lines: int
    target: float

    @property
    def cpu_s(self) -> tuple[float, float]:
        """The CPU seconds of the API and of the search server."""
        if self.server is None:
            return cpu_s(self.pid), 0.0
        sleep(SERVER_STATS_S)
        (node,) = self.server.get("/_nodes/stats/process")["nodes"].values()
        return cpu_s(self.pid), node["process"]["cpu"]["total_in_millis"] / 1000


def main(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(1)
    rows, _ = collection(rng, sorted(options.photos.glob("*.jpg")), options.images)
    searches = options.searches or SEARCHES[options.store]
    with store_settings(options.store) as settings, api(named(settings, NAME)) as (port, pid):
        fill(named(settings, NAME), rows)
        server = cluster_of(settings["ELASTICSEARCH_URL"]) if options.store == "elasticsearch" else None
        if server:
            await_merges(server)
        served = Served(port, pid, server, options.lines, TARGETS[options.store])
        # The first search of the process reads the whole store.
        send_singly(port, [filepath(0)] * 3, {})
        print(f"{options.store}, {options.images:,} images, {searches} searches a round, {ROUNDS} rounds")
        for name, more in (("all orientations", {}), ("original only", {"all_orientations": False})):
            filepaths = [filepath(row) for row in rng.integers(0, options.images, searches).tolist()]
            report(served, name, filepaths, more)
        lines = min(options.lines, searches)
        report_beside(port, [filepath(row) for row in rng.integers(0, options.images, lines).tolist()])


def cluster_of(url: str) -> Cluster:
    return ServerConnection(url, index=NAME, timeout_s=60).cluster()


def report(served: Served, name: str, filepaths: Sequence[str], more: Mapping[str, object]) -> None:
    """Print the medians of both sides and of the ratios of each round."""
    send_batches(served.port, filepaths[: served.lines], more, served.lines)
    rounds = []
    for _ in range(ROUNDS):
        singly = measured(served, lambda: send_singly(served.port, filepaths, more))
        batches = measured(served, lambda: send_batches(served.port, filepaths, more, served.lines))
        rounds.append((*singly, *batches))
    single_s, *single_cpu_s, batch_s, batch_cpu_s, batch_server_s = (
        median(values) for values in zip(*rounds, strict=True)
    )
    ratios = [median(one[side] / one[side + 3] if one[side + 3] else 1.0 for one in rounds) for side in range(3)]
    count = len(filepaths)
    print(f"{name}: single {count / single_s:,.0f}/s, {cpu_ms(*single_cpu_s, count)}")
    print(f"  batches {count / batch_s:,.0f}/s, {cpu_ms(batch_cpu_s, batch_server_s, count)}")
    rate, api_ratio, server_ratio = ratios
    print(
        f"  rate {rate:.2f} x (target: {served.target} x), CPU of the API 1 / {api_ratio:.2f}, "
        f"of the search server 1 / {server_ratio:.2f}",
        flush=True,
    )


def cpu_ms(api_s: float, server_s: float, count: int) -> str:
    return f"CPU of a search: API {api_s / count * 1e3:.2f} ms, search server {server_s / count * 1e3:.2f} ms"


def measured(served: Served, send: Callable[[], None]) -> tuple[float, float, float]:
    """Return the elapsed seconds, and the CPU seconds of the API and of the search server."""
    before, started = served.cpu_s, monotonic()
    send()
    spent, after = monotonic() - started, served.cpu_s
    return spent, after[0] - before[0], after[1] - before[1]


def send_singly(port: int, filepaths: Sequence[str], more: Mapping[str, object]) -> None:
    with closing(Connection(port)) as connection:
        for name in filepaths:
            status = connection.send(single(name, more))
            assert status == requests.codes.ok, f"a search answered {status}"


def single(name: str, more: Mapping[str, object]) -> bytes:
    return request(
        "POST", "/search", json.dumps({"filepath": name, "mode": "fast", **more}).encode(), "application/json"
    )


def send_batches(port: int, filepaths: Sequence[str], more: Mapping[str, object], lines: int) -> None:
    for start in range(0, len(filepaths), lines):
        body = "".join(
            json.dumps({"filepath": name, "mode": "fast", **more}) + "\n" for name in filepaths[start : start + lines]
        )
        reply = requests.post(
            f"http://127.0.0.1:{port}/search/batch",
            data=body.encode(),
            headers={"Content-Type": "application/x-ndjson"},
            timeout=600,
        )
        results = [json.loads(line) for line in reply.text.splitlines()]
        expected = filepaths[start : start + lines]
        for name, result in zip(expected, results, strict=True):
            assert name in [match["filepath"] for match in result["result"]], result


def report_beside(port: int, filepaths: Sequence[str]) -> None:
    """Print the latency of single searches, without other load and beside another client's searches of both kinds."""
    mix = [single(name, {}) for name in filepaths[:100]]
    others: dict[str, Callable[[], None]] = {
        "without other load": lambda: None,
        "beside single searches": lambda: send_singly(port, filepaths[:10], {}),
        "beside batches": lambda: send_batches(port, filepaths, {}, len(filepaths)),
    }
    for name, send in others.items():
        result = beside(port, mix, send)
        print(
            f"single searches {name}: p50 {result.ms(0.5, 200):.1f} ms, p99 {result.ms(0.99, 200):.1f} ms, "
            f"{1 - result.share(200):.1%} rejected"
        )


def beside(port: int, mix: Sequence[bytes], send: Callable[[], None]) -> Load:
    """Return the responses to one client while another repeats its requests."""
    has_ended = Event()

    def repeat() -> None:
        while not has_ended.is_set():
            send()
            # The load of the client without requests.
            has_ended.wait(0.01)

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(repeat)
        result = load(port, mix, clients=1, seconds=BESIDE_S)
        has_ended.set()
        other.result()
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="?", default=100_000, metavar="IMAGES")
    parser.add_argument("--store", choices=tuple(TARGETS), default="embedded")
    parser.add_argument("--lines", type=int, default=1000, help="lines of a batch")
    parser.add_argument("--searches", type=int, help="searches of each side in a round")
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.is_dir() else ROOT / "examples" / "images")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
