"""Searches of one client while another sends images that cost a decoder much: none is lost, and p95 stays near.

    PYTHONPATH=.:tests python benchmarks/bombs.py [--searches 1000] [--clients 4] [--photos FOLDER]

A real API of one process, on loopback, without a proxy. The quiet searches and those during the attack take turns in
one run. Each round prints both; the table has the medians.
"""

import argparse
import tempfile
from collections import Counter
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from parts.pipelines import ROOT

from dev.redis_server import RedisServer
from support.attack import Searches, attacking, largest_mib, search_all
from support.bombs import bombs, endless
from support.processes import serving_api

A_SECOND = 10
ROUNDS = 5
MEMORY_MIB = 150


def main() -> None:
    options = arguments()
    photos = [path.read_bytes() for path in sorted(options.photos.glob("*.jpg"))]
    images = cycle(photos)
    attack = endless(bombs())
    a_round = options.searches // ROUNDS
    answers: Counter[int] = Counter()
    quiet: list[Searches] = []
    attacked: list[Searches] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer(folder / "redis"))
        api = stack.enter_context(serving_api(folder, {"REDIS_URL": redis.url, "MATCH_LOG_LEVEL": "error"}))
        search_all(api.url, islice(images, 50), clients=options.clients)
        before = largest_mib(api.pid)
        for _ in range(ROUNDS):
            quiet.append(search_all(api.url, islice(images, a_round), clients=options.clients))
            with attacking(api.url, attack, a_second=A_SECOND) as statuses:
                attacked.append(search_all(api.url, islice(images, a_round), clients=options.clients))
            answers += statuses
            print(f"p95 quiet {1000 * quiet[-1].p95_s:.1f} ms, attacked {1000 * attacked[-1].p95_s:.1f} ms")
        after = largest_mib(api.pid)
    print(f"answers to {answers.total()} bombs, by status: {dict(answers)}")
    ratio = median(each.p95_s for each in attacked) / median(each.p95_s for each in quiet)
    report("searches lost during the attack", sum(each.lost for each in attacked), 0)
    report("p95 of searches: during the attack / quiet", ratio, 3)
    for name, mib in after.items():
        report(f"memory of the largest process, MiB more: {name}", mib - before[name], MEMORY_MIB)


def report(name: str, measured: float, target: float) -> None:
    print(f"{name:<60} <= {target:>6g}  {measured:>8.2f}  {'ok' if measured <= target else 'MISSED'}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--photos", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--searches", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
