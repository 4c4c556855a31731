"""Ingestion by URL from a server with 50 ms latency: Match, a naive port of it, and dsys/match's own way.

Each runs on all cores, one after another, with the same images and the same store: a real Elasticsearch node if one can
be started, else the embedded store. Match runs three times: with single adds (`POST /add`, 16 clients), as the others,
and with a batch (`POST /add/batch`, one client), which only Match has. Both store no local features, as the others; a
third run is a batch with local features. CPU is the sum over all processes of the service (API, workers, Redis), from
/proc; it excludes the image server and the client.

img2dataset, if it is installed, downloads the same images to files, without decoding them: the least that any pipeline
does. Its CPU an image is that of more images in a second run, so that the start of its processes does not count.

    PYTHONPATH=. python benchmarks/ingest.py [--photos FOLDER] [--images N] [--rounds N] [--store NAME]
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
from parts import downloader
from parts.pipelines import (
    WORKERS,
    Counter,
    Run,
    add_all,
    add_batch,
    arguments,
    image_server,
    match,
    measure,
    named,
    running,
    store_settings,
    wait_for,
    wait_for_workers,
)

from common.images.decode import Limits, decode
from common.images.signature import sign
from dev.ports import free_port
from dev.redis_server import RedisServer


def main() -> None:
    options = arguments(__doc__, images=3000)
    names = sorted(path.name for path in options.photos.glob("*.jpg"))
    with image_server(options.photos) as url, store_settings(options.store) as store:
        urls = {
            f"{number:06}-{names[number % len(names)]}": f"{url}/{names[number % len(names)]}"
            for number in range(options.images)
        }
        # Fewer images for the slow ones: their rate is constant from the first second.
        few = dict(list(urls.items())[: max(len(names), options.images // 4)])
        rounds = []
        for number in range(options.rounds):
            settings = {name: value.replace("ROUND", str(number)) for name, value in store.items()}
            rounds.append(
                Round(
                    match(urls, settings, "Match", add_all, MATCH_LOCAL_FEATURES="false"),
                    match(urls, settings, "Match, a batch", add_batch, MATCH_LOCAL_FEATURES="false"),
                    match(urls, settings, "Match, local features", add_batch),
                    naive(few, settings),
                    dsys(few, settings),
                    decode_and_sign_ms(options.photos),
                    float("nan") if downloader.why_not() else downloader.marginal_ms([*urls.values()]),
                )
            )
    print(f"store: {options.store}")
    report(rounds)
    if reason := downloader.why_not():
        print(reason)


def naive(urls: Mapping[str, str], store: Mapping[str, str]) -> Run:
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        environment = named(store, "naive") | {"REDIS_URL": redis.url}
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


def dsys(urls: Mapping[str, str], store: Mapping[str, str]) -> Run:
    port = free_port()
    environment = named(store, "dsys")
    counter = RawCounter(environment) if "ELASTICSEARCH_URL" in store else Counter(environment)
    command = ["-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{port}", "--no-control-socket", "dsys:app"]
    with running({"api": command}, environment) as processes:
        wait_for(f"http://127.0.0.1:{port}/")
        pids = {"api": processes["api"].pid}
        return measure("dsys/match", urls, counter, pids, partial(add_all, f"http://127.0.0.1:{port}"))


def decode_and_sign_ms(folder: Path) -> float:
    """Return the CPU milliseconds of decoding and signing an image, in this process."""
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    rounds = []
    for _ in range(3):
        started = process_time()
        for data in images:
            sign(decode(data, Limits()).pixels)
        rounds.append((process_time() - started) * 1000 / len(images))
    return median(rounds)


class RawCounter:
    """Counter of the images in dsys/match's own index."""

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
    features: Run
    naive: Run
    dsys: Run
    compute_ms: float
    # Not a number without img2dataset.
    download_ms: float


def report(rounds: Sequence[Round]) -> None:
    print(f"{'':21} {'images/s':>9} {'CPU ms/image':>13} {'missing':>8}   CPU ms/image by process")
    for run in (run for each in rounds for run in (each.match, each.batch, each.features, each.naive, each.dsys)):
        by_process = ", ".join(f"{name} {ms:.1f}" for name, ms in run.cpu_ms.items())
        print(f"{run.name:21} {run.rate:9.0f} {run.total_ms:13.1f} {run.missing:8}   {by_process}")
    rows: list[tuple[str, str, Callable[[Round], float]]] = [
        ("single adds: rate / naive port's", ">= 4", lambda each: each.match.rate / each.naive.rate),
        ("single adds: rate / dsys/match's", ">= 2.5", lambda each: each.match.rate / each.dsys.rate),
        ("single adds: CPU per image / dsys/match's", "<= 0.5", lambda each: each.match.total_ms / each.dsys.total_ms),
        ("single adds: worker CPU / decode + signature", "<= 2.2", lambda each: each.match.worker_ms / each.compute_ms),
        ("batch: rate / single adds'", ">= 1.3", lambda each: each.batch.rate / each.match.rate),
        ("batch: rate / dsys/match's", ">= 2.5", lambda each: each.batch.rate / each.dsys.rate),
        ("batch: CPU per image / dsys/match's", "<= 0.3", lambda each: each.batch.total_ms / each.dsys.total_ms),
        ("batch: worker CPU / decode + signature", "<= 1.7", lambda each: each.batch.worker_ms / each.compute_ms),
        ("batch: CPU per image / img2dataset's", "<= 1", lambda each: each.batch.total_ms / each.download_ms),
        ("img2dataset: CPU ms per image", "", lambda each: each.download_ms),
        ("with local features: rate / batch's without", "", lambda each: each.features.rate / each.batch.rate),
        ("with local features: CPU / batch's without", "", lambda each: each.features.total_ms / each.batch.total_ms),
        ("accepted images missing from the store", "0", lambda each: sum(run.missing for run in each[:3])),
    ]
    print("\nmedian of the rounds (each round)")
    for name, target, value_of in rows:
        values = [value_of(each) for each in rounds]
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:46} {median(values):6.2f}   target {target:7} ({each})")
    # Other load on the machine only increases CPU times: the minimum is closest to the true cost.
    least = min(each.match.total_ms for each in rounds) / min(each.dsys.total_ms for each in rounds)
    compute = min(each.match.worker_ms for each in rounds) / min(each.compute_ms for each in rounds)
    print(
        f"\nfrom the minima, single adds: CPU / dsys/match's {least:.2f}, worker CPU / decode + signature {compute:.2f}"
    )


if __name__ == "__main__":
    main()
