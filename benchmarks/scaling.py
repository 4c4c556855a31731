"""One worker beside two: what a second one brings, where cores bound the rate and where waiting for pictures does.

The same batch by URL, from a server that answers 50 ms late, into the same store, by one worker and by two in turns.
Once with the 32 threads that a worker has by default, once with so few that it waits for pictures most of the time. All
else (API, Redis, Elasticsearch, picture server, client) shares the machine's cores with the workers; the report tells
how many of them were busy.

    PYTHONPATH=. python benchmarks/scaling.py [--pictures FOLDER] [--images N] [--rounds N] [--store NAME]
"""

import os
from collections.abc import Sequence
from statistics import median

from parts.pipelines import Run, add_batch, arguments, match, picture_server, place

CORES = os.cpu_count() or 1
THREADS = {"by default, 32 threads": "32", "few, 4 threads": "4"}


def main() -> None:
    options = arguments(__doc__, images=2400)
    names = sorted(path.name for path in options.pictures.glob("*.jpg"))
    with picture_server(options.pictures) as url, place(options.store) as store:
        urls = {f"{n:06}": f"{url}/{names[n % len(names)]}" for n in range(options.images)}
        print(f"store: {options.store}, {CORES} cores, {options.images} images")
        for kind, threads in THREADS.items():
            pairs = []
            for number in range(options.rounds):
                where = {name: value.replace("ROUND", f"{threads}-{number}") for name, value in store.items()}
                # Who goes first takes turns: the machine's speed wanders.
                order = (1, 2) if number % 2 else (2, 1)
                runs = {
                    workers: match(
                        urls,
                        where,
                        f"{workers} worker{'s' if workers > 1 else ''}",
                        add_batch,
                        workers=workers,
                        MATCH_WORKER_THREADS=threads,
                    )
                    for workers in order
                }
                pairs.append((runs[1], runs[2]))
            report(kind, pairs)


def report(kind: str, pairs: Sequence[tuple[Run, Run]]) -> None:
    print(f"\n{kind}")
    print(f"{'':10} images/s   cores busy: all  workers   API  Redis  others   missing")
    for run in (run for pair in pairs for run in pair):
        workers, api, redis = (cores(run, name) for name in ("worker", "api", "redis"))
        others = run.busy_cores - workers - api - redis
        busy = f"{run.busy_cores:17.2f} {workers:8.2f} {api:5.2f} {redis:6.2f} {others:7.2f}"
        print(f"{run.name:10} {run.rate:8.0f} {busy} {run.missing:9}")
    ratios = [two.rate / one.rate for one, two in pairs]
    each = " ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"two workers against one: {median(ratios):.2f} x ({each}), efficiency {median(ratios) / 2:.2f}")


def cores(run: Run, name: str) -> float:
    """Return how many cores the processes of that name kept busy."""
    return run.rate * sum(ms for process, ms in run.cpu_ms.items() if process.startswith(name)) / 1000


if __name__ == "__main__":
    main()
