"""CPU of searches and comparisons over HTTP, against the request's own decoding and signature and a /ping.

    PYTHONPATH=.:tests python benchmarks/request_cpu.py [--store embedded|elasticsearch] [--images N] [--photos FOLDER]

A real server with one process and its decoders, on loopback; one client sends the requests of all kinds in turns, round
by round. CPU is that of all processes of the API, without the client and the search server. Decoding and signature are
those of the same bytes in this process, as a decoder process runs them, without what lies between.

Each query is a photograph that the store contains, among synthetic signatures (`parts/collection.py`).
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
from parts.collection import collection, filepath
from parts.load import Connection, request, upload
from parts.pipelines import ROOT, cpu_s, store_settings
from parts.segments import await_merges
from parts.serving import api, fill, named

from common.images.decode import Limits, decode
from common.images.signing import sign_all
from common.store.elastic.connection import Connection as ServerConnection

ROUNDS = 7
# Requests of each kind in a round, and photographs: one that is decoded again would be in the processor's caches.
REQUESTS = 120
NAME = "requests"
OK = 200
SEARCH = "search by upload, all orientations"
ONE = "search by upload, original only"
STORED = "search by filepath, all orientations"
COMPARE = "compare of two uploads"
PING = "/ping"
OWN = "decode + signature"


def main(options: argparse.Namespace) -> None:
    paths = sorted(options.photos.glob("*.jpg"))
    rows, _ = collection(np.random.default_rng(1), paths, options.images)
    images = [path.read_bytes() for path in islice(cycle(paths), REQUESTS)]
    with store_settings(options.store) as settings, api(named(settings, NAME)) as (port, pid):
        fill(named(settings, NAME), rows)
        if options.store == "elasticsearch":
            await_merges(ServerConnection(settings["ELASTICSEARCH_URL"], index=NAME, timeout_s=60).cluster())
        print(f"{options.store}, {options.images:,} images; {ROUNDS} rounds of {REQUESTS} requests of each kind")
        report(measured(port, pid, images))


def requests_of(images: Sequence[bytes]) -> dict[str, list[bytes]]:
    """Return the requests of each kind."""
    pairs = zip(images, [*images[1:], images[0]], strict=True)
    return {
        SEARCH: [upload("/search", image, mode="fast", all_orientations="true") for image in images],
        ONE: [upload("/search", image, mode="fast", all_orientations="false") for image in images],
        STORED: [request("POST", f"/search?filepath={filepath(row)}&mode=fast") for row in range(len(images))],
        COMPARE: [comparison(*pair) for pair in pairs],
        PING: [request("GET", "/ping")] * len(images),
    }


def comparison(one: bytes, other: bytes) -> bytes:
    fields = [
        b'--x\r\nContent-Disposition: form-data; name="image%d"; filename="a.jpg"\r\n\r\n%b\r\n' % (number, data)
        for number, data in ((1, one), (2, other))
    ]
    body = b'--x\r\nContent-Disposition: form-data; name="mode"\r\n\r\nfast\r\n' + b"".join(fields) + b"--x--\r\n"
    return request("POST", "/compare", body, "multipart/form-data; boundary=x")


def measured(port: int, pid: int, images: Sequence[bytes]) -> list[dict[str, float]]:
    """Return the CPU milliseconds of a request of each kind, by round."""
    with closing(Connection(port)) as connection:

        def send(some: Sequence[bytes]) -> None:
            statuses = {connection.send(one) for one in some}
            assert statuses == {OK}, f"responses have the statuses {statuses}"

        calls: dict[str, tuple[Callable[[], None], Callable[[], float]]] = {
            name: (lambda some=some: send(some), lambda: cpu_s(pid))  # type: ignore[misc]
            for name, some in requests_of(images).items()
        }
        calls[OWN] = (lambda: decode_and_sign(images), process_time)
        # The first round opens connections and fills caches.
        return [{name: cpu_ms(*call) for name, call in calls.items()} for _ in range(ROUNDS + 1)][1:]


def decode_and_sign(images: Sequence[bytes]) -> None:
    for data in images:
        sign_all(decode(data, Limits()).pixels)


def cpu_ms(call: Callable[[], None], clock: Callable[[], float]) -> float:
    before = clock()
    call()
    return (clock() - before) * 1000 / REQUESTS


def report(rounds: Sequence[dict[str, float]]) -> None:
    for name in rounds[0]:
        print(f"{name:38} {median(each[name] for each in rounds):6.2f} ms")
    ratios: list[tuple[str, str, Callable[[dict[str, float]], float]]] = [
        ("search / (decode + signature + /ping)", "<= 1.3", lambda each: each[SEARCH] / (each[OWN] + each[PING])),
        ("search, original only / the same", "", lambda each: each[ONE] / (each[OWN] + each[PING])),
        ("search / compare", "< 1", lambda each: each[SEARCH] / each[COMPARE]),
    ]
    for name, target, value_of in ratios:
        values = sorted(value_of(each) for each in rounds)
        print(f"{name:38} {median(values):6.2f}   target {target:6} ({' '.join(f'{value:.2f}' for value in values)})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--photos", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--store", choices=("elasticsearch", "embedded"), default="embedded")
    parser.add_argument("--images", type=int, default=5000)
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
