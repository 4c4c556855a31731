"""One worker against two: the gain of the second one if CPU limits the rate, and if downloads do.

One worker and two workers alternately store the same batch by URL, from a server with 50 ms latency, in the same store.
The first comparison has the default of 32 threads per worker. The second has so few threads that a worker mostly waits
for downloads. No local features are stored: with them, the two decoder processes of one worker keep both cores of a
small machine busy. The other programs (API, Redis, Elasticsearch, image server, client) share the cores with the
workers. The report has the number of busy cores.

    PYTHONPATH=. python benchmarks/scaling.py [--photos FOLDER] [--images N] [--rounds N] [--store NAME]
"""

import os
from collections.abc import Sequence
from statistics import median

from parts.pipelines import Run, add_batch, arguments, image_server, match, store_settings

CORES = os.cpu_count() or 1
THREADS = {"32 threads, the default": "32", "4 threads": "4"}


def main() -> None:
    options = arguments(__doc__, images=2400)
    names = sorted(path.name for path in options.photos.glob("*.jpg"))
    with image_server(options.photos) as url, store_settings(options.store) as store:
        urls = {f"{n:06}": f"{url}/{names[n % len(names)]}" for n in range(options.images)}
        print(f"store: {options.store}, {CORES} cores, {options.images} images")
        for kind, threads in THREADS.items():
            pairs = []
            for number in range(options.rounds):
                settings = {name: value.replace("ROUND", f"{threads}-{number}") for name, value in store.items()}
                # The order alternates, because the speed of the machine changes.
                order = (1, 2) if number % 2 else (2, 1)
                runs = {
                    workers: match(
                        urls,
                        settings,
                        f"{workers} worker{'s' if workers > 1 else ''}",
                        add_batch,
                        workers=workers,
                        MATCH_WORKER_THREADS=threads,
                        MATCH_LOCAL_FEATURES="false",
                    )
                    for workers in order
                }
                pairs.append((runs[1], runs[2]))
            report(kind, pairs)


def report(kind: str, pairs: Sequence[tuple[Run, Run]]) -> None:
    print(f"\n{kind}")
    print(f"{'':10} images/s   busy cores: all  workers   API  Redis  others   missing")
    for run in (run for pair in pairs for run in pair):
        workers, api, redis = (busy_cores(run, name) for name in ("worker", "api", "redis"))
        others = run.busy_cores - workers - api - redis
        busy = f"{run.busy_cores:17.2f} {workers:8.2f} {api:5.2f} {redis:6.2f} {others:7.2f}"
        print(f"{run.name:10} {run.rate:8.0f} {busy} {run.missing:9}")
    ratios = [two.rate / one.rate for one, two in pairs]
    each = " ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"two workers / one: {median(ratios):.2f} x ({each}), efficiency {median(ratios) / 2:.2f}")


def busy_cores(run: Run, name: str) -> float:
    """Return the number of cores that the processes of that name kept busy."""
    return run.rate * sum(ms for process, ms in run.cpu_ms.items() if process.startswith(name)) / 1000


if __name__ == "__main__":
    main()
