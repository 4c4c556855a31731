"""Ingestion by URL from a server with 50 ms latency: Match, a naive port of it, and dsys/match's own way.

Each runs on all cores, one after another, on the same pictures, into the same store: a real Elasticsearch node where
one can be started, else the embedded one. Match runs twice: single adds (`POST /add`, 16 clients) as the others have
them, and a batch (`POST /add/batch`, one client), which only it has. CPU is that of every process of the service (API,
workers, Redis), read from the kernel; the picture server and the client are nobody's.

    python benchmarks/ingest.py [--pictures FOLDER] [--images N] [--rounds N] [--store elasticsearch|embedded]
"""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import NamedTuple

from celery import Celery
from elasticsearch import Elasticsearch
from parts.pipelines import (
    WORKERS,
    Counter,
    Run,
    add_all,
    add_batch,
    arguments,
    match,
    measure,
    named,
    picture_server,
    place,
    running,
    wait_for,
    wait_for_workers,
)

from common.images.decode import Limits, decode
from common.images.signature import sign
from dev.ports import free_port
from dev.redis_server import RedisServer


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


if __name__ == "__main__":
    main()
