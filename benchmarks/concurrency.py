"""Many clients that search at once, and short requests beside them.

    PYTHONPATH=.:tests python benchmarks/concurrency.py [--store embedded|elasticsearch] [--images N …] [--seconds N]

A real server with as many processes as cores, its Redis and a store of signatures, on loopback. Each client has an
address of its own, and sends photographs one after the other, in the mode `fast` with all orientations. Meanwhile one
other client sends `/ping`, `/count` or `/delete`, each for as long. They do the same without searches, in turns.

Clients and API share the cores. Searching clients beyond the limit of the API are rejected with 503, and wait for the
time of its Retry-After. The quantiles are those of served requests.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from parts.collection import collection, filepath
from parts.load import TIMED_OUT, Load, load, request, upload
from parts.pipelines import ROOT, store_settings
from parts.segments import await_merges
from parts.serving import api, fill, named

from common.store.elastic.connection import Connection as ServerConnection

CORES = os.cpu_count() or 1
CLIENTS = (8, 64)
QUERIES = 100
# Deletions in a second are far fewer.
DELETIONS_EACH_S = 2000
# The searching clients have started before the others, and end after them.
MARGIN_S = 2.0
OK, BUSY = 200, 503


def main(options: argparse.Namespace) -> None:
    paths = sorted(options.photos.glob("*.jpg"))
    searches = [upload("/search", path.read_bytes(), mode="fast", all_orientations="true") for path in paths[:QUERIES]]
    with store_settings(options.store) as settings:
        for images in options.images:
            rows, _ = collection(np.random.default_rng(1), paths, images)
            name = f"concurrency-{images}"
            with api(named(settings, name), processes=CORES) as (port, _):
                fill(named(settings, name), rows)
                if options.store == "elasticsearch":
                    await_merges(ServerConnection(settings["ELASTICSEARCH_URL"], index=name, timeout_s=60).cluster())
                print(f"\n{options.store}, {images:,} images, {CORES} cores", flush=True)
                load(port, searches, clients=1, seconds=MARGIN_S)
                report(port, searches, seconds=options.seconds, images=images)


def report(port: int, searches: Sequence[bytes], *, seconds: float, images: int) -> None:
    # Each deletion is of an image that is still stored.
    left = count(1)
    deletions = int(DELETIONS_EACH_S * seconds)
    for clients in (0, *CLIENTS):
        for name in ("/ping", "/count", "/delete"):
            sent = [request("GET", name)]
            if name == "/delete":
                rows = [images - next(left) for _ in range(min(deletions, images // 4))]
                sent = [request("DELETE", f"/delete?filepath={filepath(row)}") for row in rows]
            searched, short = beside(port, searches, clients, sent, seconds)
            print(f"{clients:3} searching clients: {name:8} {shown(short)}")
            if searched:
                print(f"{'':23}searches {shown(searched)}", flush=True)


def beside(
    port: int, searches: Sequence[bytes], clients: int, sent: Sequence[bytes], seconds: float
) -> tuple[Load | None, Load]:
    """Return the responses to the searching clients, in processes of their own, and to one other client beside them."""
    if not clients:
        return None, load(port, sent, clients=1, seconds=seconds)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        both = seconds + 2 * MARGIN_S
        searched = pool.submit(load, port, searches, clients=clients, seconds=both, as_users=True)
        load(port, [request("GET", "/ping")], clients=1, seconds=MARGIN_S)
        short = load(port, sent, clients=1, seconds=seconds)
        return searched.result(), short


def shown(responses: Load) -> str:
    return (
        f"{responses.rate(OK):7.1f}/s, p50 {responses.ms(0.5, OK):6.1f} ms, p99 {responses.ms(0.99, OK):7.1f} ms, "
        f"rejected {responses.share(BUSY):.1%}, timed out {responses.share(TIMED_OUT):.1%}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--photos", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--store", choices=("elasticsearch", "embedded"), default="embedded")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 300_000])
    parser.add_argument("--seconds", type=float, default=10.0)
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
