"""Delay by a large batch of one collection: of single adds, and of a small batch of another collection.

The service has one API process, a worker for each core and the embedded store. First it is empty, then a batch of
`--flood` images waits in the collection `large`. The images are uploads of single adds, and a batch by URL from a
server on this machine.

    PYTHONPATH=. python benchmarks/fairness.py [--photos FOLDER] [--flood N] [--batch N]
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import NamedTuple

import requests
from parts.pipelines import ROOT, image_server, service

from common.queue.stats import read_stats
from common.redis.client import connect
from dev.redis_server import RedisServer

# Lines of one request.
LINES = 100_000
SINGLES = 20
TIMEOUT_S = 3600


class Delays(NamedTuple):
    """Seconds until each single add, and until the whole batch, is stored."""

    singles: Sequence[float]
    batch: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--photos", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--flood", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1000)
    options = parser.parse_args()
    photos = sorted(options.photos.glob("*.jpg"))
    with (
        image_server(options.photos) as images,
        tempfile.TemporaryDirectory() as home,
        RedisServer(Path(home) / "redis") as redis,
    ):
        urls = [f"{images}/{photo.name}" for photo in photos]
        settings = {
            "REDIS_URL": redis.url,
            "MATCH_STORE_URL": f"sqlite:///{home}/match.db",
            "MATCH_MAX_BACKLOG": "10000000",
        }
        with service(settings) as (api, _):
            idle = measure(api, urls, photos, options.batch, name="idle")
            add_batch(api, "large", urls, options.flood)
            busy = measure(api, urls, photos, options.batch, name="busy")
            left = read_stats(connect(redis.url)).open_by_collection.get("large", 0)
    print(f"{'':24} {'median':>8} {'longest':>8}")
    for name, delays in (("empty", idle), (f"{options.flood:,} waiting", busy)):
        print(f"single adds, {name:11} {median(delays.singles):8.2f} {max(delays.singles):8.2f} s")
        print(f"batch, {name:17} {delays.batch:8.2f} s")
    print(f"delay of the batch: {busy.batch - idle.batch:.2f} s, of the slowest single add: ", end="")
    print(f"{max(busy.singles) - median(idle.singles):.2f} s")
    print(f"{left:,} images of the large batch waited at the end")
    assert left, "the large batch ended too early: --flood must be larger"


def measure(api: str, urls: Sequence[str], photos: Sequence[Path], count: int, *, name: str) -> Delays:
    """Add single images to one collection after another, then a batch to a collection of its own."""
    singles = []
    for number in range(SINGLES):
        started = monotonic()
        fields = {"filepath": f"{name}-{number}", "collection": f"single-{number}", "wait": "60"}
        with photos[number % len(photos)].open("rb") as file:
            reply = requests.post(f"{api}/add", data=fields, files={"image": file}, timeout=120)
        assert reply.status_code == 200, reply.text
        singles.append(monotonic() - started)
    started = monotonic()
    add_batch(api, name, urls, count)
    while requests.get(f"{api}/count", params={"collection": name}, timeout=60).json()["result"] != [count]:
        assert monotonic() - started < TIMEOUT_S
        sleep(0.1)
    return Delays(singles, monotonic() - started)


def add_batch(api: str, collection: str, urls: Sequence[str], count: int) -> None:
    for start in range(0, count, LINES):
        numbers = range(start, min(start + LINES, count))
        lines = "".join(json.dumps({"filepath": f"{n}", "url": urls[n % len(urls)]}) + "\n" for n in numbers)
        reply = requests.post(
            f"{api}/add/batch",
            params={"collection": collection},
            data=lines.encode(),
            headers={"Content-Type": "application/x-ndjson"},
            timeout=TIMEOUT_S,
        )
        reply.raise_for_status()
        assert '"status": "fail"' not in reply.text, reply.text[:500]


if __name__ == "__main__":
    main()
