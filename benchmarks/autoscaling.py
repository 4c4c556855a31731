"""Workers that come and go with the queue: one batch by URL, from a server that answers 50 ms late.

The rule is that of the manifests' ScaledObject: its metric, its target, its formula; its times are divided by
`--quicker`, and there are no more workers than `--most`. A worker has few threads, so that it waits for pictures and
not for a core: a machine with two can show more workers than that. At the end every filepath is read from the store and
every task from the ledger.

    PYTHONPATH=.:tests/faults python benchmarks/autoscaling.py [--images N] [--most N] [--results FILE] [--plot FILE]
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Self

from parts.pipelines import ROOT, picture_server, place
from parts.timeline import draw_workers

from common.config import Settings
from common.queue.keys import ENDED
from common.queue.tasks import State
from common.wiring import Parts, wire
from dev.elasticsearch_node import why_not
from dev.redis_server import RedisServer
from harness.accounts import Accepted, Client, Item
from harness.autoscaling import Autoscaler, Rule
from harness.service import Service
from harness.waiting import wait_until

SAMPLE_EVERY_S = 0.25
# Before the batch and after the last worker has gone.
REST_S = 3.0
END_WITHIN_S = 600
# Of the table that is printed.
LINES = 40
SETTINGS = {
    "MATCH_FETCH_ALLOW": "127.0.0.1",
    "MATCH_API_HOST": "127.0.0.1",
    "WORKER_COUNT": "1",
    "MATCH_WORKER_THREADS": "4",
    "MATCH_LOG_LEVEL": "warning",
}


@dataclass(frozen=True)
class Sample:
    """What there is at a moment, in seconds since the beginning: open tasks, workers, tasks that ended so far."""

    at: float
    open: int
    workers: int
    ended: int


class Sampler:
    """Looks at queue and workers for as long as the `with` lasts."""

    def __init__(self, parts: Parts, scaler: Autoscaler) -> None:
        self.samples: list[Sample] = []
        self._parts = parts
        self._scaler = scaler
        self._began = monotonic()
        self._before = self._ended()
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            at = round(monotonic() - self._began, 2)
            ended = self._ended() - self._before
            self.samples.append(Sample(at, self._parts.ledger.open_count(), self._scaler.alive(), ended))

    def _ended(self) -> int:
        return sum(int(count) for count in self._parts.redis.hvals(ENDED))


@dataclass(frozen=True)
class Run:
    """What came of one batch; `workers_ended` are the exit statuses of those that were stopped."""

    images: int
    target: float
    most: int
    quicker: float
    threads: int
    cores: int
    lost: int
    repeated: int
    workers_ended: list[int]
    samples: list[Sample]

    @property
    def is_right(self) -> bool:
        return not self.lost and not self.repeated and not any(self.workers_ended)


def main() -> int:
    options = arguments()
    names = sorted(path.name for path in options.pictures.glob("*.jpg"))
    with (
        picture_server(options.pictures) as pictures,
        place(options.store) as store,
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder) / "redis") as redis,
    ):
        where = {name: value.replace("NAME-ROUND", "autoscaling") for name, value in store.items()}
        environment = SETTINGS | where | {"REDIS_URL": redis.url}
        items = [Item(f"{n:06}", n, f"{pictures}/{names[n % len(names)]}") for n in range(options.images)]
        parts = wire(Settings.from_env(environment))
        parts.store.prepare()
        with Service(Path(folder), environment) as service:
            run = scale(service, parts, items, options)
        parts.close()
    report(run, options)
    return 0 if run.is_right else 1


def scale(service: Service, parts: Parts, items: Sequence[Item], options: argparse.Namespace) -> Run:
    rule = Rule.read().smaller(target=1.0, most=options.most, times=1 / options.quicker)
    client = Client(service.start_api())
    with Autoscaler(service, parts.redis, rule) as scaler:
        warm_up(client, parts, items[0])
        with Sampler(parts, scaler) as sampler:
            sleep(REST_S)
            accepted = client.add_batch(items)
            wait_until(lambda: not parts.ledger.open_count(), "all work ends", within_s=END_WITHIN_S)
            wait_until(lambda: scaler.alive() == rule.least, "the workers go again", within_s=END_WITHIN_S)
            sleep(REST_S)
    return Run(
        images=len(items),
        target=rule.target,
        most=scaler.most_running,
        quicker=options.quicker,
        threads=int(SETTINGS["MATCH_WORKER_THREADS"]),
        cores=os.cpu_count() or 1,
        lost=len(items) - stored(parts, accepted),
        repeated=sum(task.attempts - 1 for one in accepted if (task := parts.ledger.task(one.task_id))),
        workers_ended=scaler.ended,
        samples=sampler.samples,
    )


def warm_up(client: Client, parts: Parts, item: Item) -> None:
    """Return when the first worker works."""
    client.add_batch([item])
    wait_until(lambda: not parts.ledger.open_count(), "the first worker works")


def stored(parts: Parts, accepted: Sequence[Accepted]) -> int:
    """Return how many of them have succeeded, and are in the store."""
    parts.store.refresh()
    tasks = (parts.ledger.task(one.task_id) for one in accepted)
    right = [task.filepath for task in tasks if task is not None and task.state is State.SUCCEEDED]
    return sum(len(parts.store.records(right[start : start + 500])) for start in range(0, len(right), 500))


def report(run: Run, options: argparse.Namespace) -> None:
    print(f"{run.images} images, {run.target:g} open a worker, {run.threads} threads a worker, {run.cores} cores")
    for sample in run.samples[:: max(1, len(run.samples) // LINES)]:
        print(f"{sample.at:6.1f} s   open {sample.open:6}   workers {sample.workers:2}   ended {sample.ended:6}")
    print(f"workers: 1 to {run.most} and back; {len(run.workers_ended)} were stopped, statuses {run.workers_ended}")
    print(f"lost {run.lost}   repeated {run.repeated}")
    if options.results:
        options.results.write_text(json.dumps(asdict(run), separators=(",", ":")) + "\n")
    draw_workers([(one.at, one.open, one.workers, one.ended) for one in run.samples], options.plot)
    print(f"drawn: {options.plot}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    photos = ROOT.parent / "shared" / "data" / "photos"
    parser.add_argument("--pictures", type=Path, default=photos if photos.is_dir() else ROOT / "examples" / "images")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--quicker", type=float, default=60.0)
    stores = ("elasticsearch", "embedded")
    parser.add_argument("--store", choices=stores, default=stores[1] if why_not() else stores[0])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "autoscaling.svg")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
