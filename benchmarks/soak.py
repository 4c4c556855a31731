"""The service at full rate for minutes, with bad input and a kill each minute: lost images and memory growth.

Clients add images by URL as fast as the workers process them, again and again under the same filepaths. One URL in
twenty has no valid image. Once a minute a worker, a process of the API or Redis is killed. One worker and one API
process are never killed, so that a leak becomes visible. At the end each filepath is compared with the store.

    PYTHONPATH=.:tests python benchmarks/soak.py [--minutes N] [--store elasticsearch|embedded] [--plot FILE]
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from statistics import median
from threading import Event, Lock
from time import monotonic, sleep

import numpy as np
import requests

from common.config import Settings
from common.queue.stats import read_stats
from common.queue.tasks import State
from common.wiring import Dependencies, build_dependencies
from dev.elasticsearch_node import Node, why_not
from dev.redis_server import NoRedis, RedisServer
from support.http_servers import serving
from support.image_server import ImageServer, signature
from support.service import Service, resident_mib
from support.waiting import wait_until

CLIENTS = 4
LINES = 100
FILEPATHS = 2_500
IMAGES = 1_000
BAD_EVERY = 20
# Enough tasks to keep the workers busy, few enough for Redis's memory.
MAX_OPEN_TASKS = 2_000
KILL_EVERY_S = 60.0
SAMPLE_EVERY_S = 2.0
RETENTION_S = 60
# Memory growth, from the second quarter to the last, that counts as a leak.
MAX_GROWTH = 1.15
# Keys without retention: queues, counters, leases, and keys that expire after seconds.
MAX_LASTING_KEYS = 20
SETTINGS = {
    "MATCH_API_HOST": "127.0.0.1",
    "WORKER_COUNT": "2",
    "MATCH_VISIBILITY_TIMEOUT_S": "30",
    "MATCH_FETCH_TIMEOUT_S": "5",
    "MATCH_DECODE_TIMEOUT_S": "5",
    "MATCH_STORE_HOLD_S": "10",
    "MATCH_FINISHED_KEEP_S": f"{RETENTION_S}",
    "MATCH_FAILED_KEEP_S": f"{RETENTION_S}",
    "MATCH_LOG_LEVEL": "warning",
}


@dataclass
class Soak:
    """The state of a run: accepted images and observations. Each client has filepaths of its own."""

    newest: dict[str, int] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    accepted: int = 0
    kills: list[tuple[float, str]] = field(default_factory=list)
    samples: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    stop: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder, store_settings(options.store, Path(folder)) as settings:
        home = Path(folder)
        (home / "logs").mkdir()
        with serving(ImageServer()) as images, RedisServer(home / "redis") as redis:
            environment = SETTINGS | settings | {"REDIS_URL": redis.url, "MATCH_FETCH_ALLOW": "127.0.0.1"}
            dependencies = build_dependencies(Settings.from_env(environment))
            dependencies.store.prepare()
            with Service(home / "logs", environment) as service:
                ok = soak(service, redis, dependencies, images.url, options)
            dependencies.close()
    return 0 if ok else 1


@contextmanager
def store_settings(name: str, folder: Path) -> Iterator[dict[str, str]]:
    if name == "embedded":
        yield {"MATCH_STORE_URL": f"sqlite:///{folder}/match.db"}
        return
    with Node(heap_mib=1024) as node:
        yield {"MATCH_STORE_URL": "", "ELASTICSEARCH_URL": node.url, "ELASTICSEARCH_INDEX": "soak"}


def soak(
    service: Service, redis: RedisServer, dependencies: Dependencies, images: str, options: argparse.Namespace
) -> bool:
    url = service.start_api()
    workers = [service.start_worker() for _ in range(max(2, os.cpu_count() or 1))]
    [api] = service.running("api")
    state = Soak()
    started = monotonic()
    watched: Mapping[str, Callable[[], int]] = {
        "worker, never killed": lambda: workers[0].pid,
        "worker, killed repeatedly": lambda: workers[1].pid,
        "API process, never killed": lambda: children(api.pid)[0],
        "Redis": lambda: redis.pid,
    }
    victims = cycle(
        [
            ("worker", lambda: os.kill(workers[1].pid, signal.SIGKILL)),
            ("API process", lambda: os.kill(children(api.pid)[-1], signal.SIGKILL)),
            ("Redis", lambda: (redis.kill(), redis.start())),
        ]
    )
    with ThreadPoolExecutor(CLIENTS + 2) as pool:
        loops = [pool.submit(add_images, state, url, images, dependencies, client) for client in range(CLIENTS)]
        loops += [
            pool.submit(check_bad, state, dependencies),
            pool.submit(sample, state, dependencies, watched, started),
        ]
        until = started + 60 * options.minutes
        next_kill = started + KILL_EVERY_S / 2
        while monotonic() < until:
            if monotonic() >= next_kill:
                next_kill += KILL_EVERY_S
                name, kill = next(victims)
                state.kills.append((monotonic() - started, name))
                kill()
            for loop in loops:
                if loop.done():
                    # A loop ends early only with an exception, which this raises.
                    loop.result()
            sleep(0.2)
        state.stop.set()
        for loop in loops:
            loop.result()
    seconds = monotonic() - started
    wait_until(lambda: not read_stats(dependencies.redis).open, "all tasks are finished", within_s=300)
    drained_s = monotonic() - started - seconds
    return report(state, dependencies, options, seconds=seconds, drained_s=drained_s)


def add_images(state: Soak, url: str, images: str, dependencies: Dependencies, client: int) -> None:
    """Add batches until the end; lines without a response or with a retryable error are sent again first."""
    rng = np.random.default_rng(client)
    numbers = count()
    while not state.stop.is_set():
        with suppress(Exception):
            while read_stats(dependencies.redis).open > MAX_OPEN_TASKS and not state.stop.is_set():
                sleep(0.05)
        lines = [line(images, client, next(numbers), rng) for _ in range(LINES)]
        while lines and not state.stop.is_set():
            lines = post(state, url, lines)


def line(images: str, client: int, number: int, rng: np.random.Generator) -> dict[str, str]:
    if number % BAD_EVERY == 0:
        paths = ("/none", "/page", "/half", ":1/1")
        return {"filepath": f"bad/{client}/{number}", "url": images + paths[int(rng.integers(len(paths)))]}
    return {"filepath": f"{client}/{number % FILEPATHS}", "url": f"{images}/{rng.integers(IMAGES)}"}


def post(state: Soak, url: str, lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the lines that were not accepted."""
    try:
        body = "\n".join(json.dumps(line) for line in lines)
        response = requests.post(
            f"{url}/add/batch", data=body, headers={"Content-Type": "application/x-ndjson"}, timeout=60
        )
        outcomes = [json.loads(one) for one in response.text.splitlines()] if response.ok else []
    except (requests.RequestException, ValueError):
        outcomes = []
    if not outcomes:
        sleep(0.5)
    left = dict(enumerate(lines, 1))
    with state.lock:
        for outcome in outcomes:
            if "task" in outcome:
                line = left.pop(outcome["line"])
                state.accepted += 1
                if line["filepath"].startswith("bad/"):
                    state.bad[outcome["task"]["id"]] = line["filepath"]
                else:
                    state.newest[line["filepath"]] = int(line["url"].rpartition("/")[2])
            elif "retry_after" not in outcome and outcome["line"] in left:
                # The API rejects it, for example for an invalid URL.
                rejected = left.pop(outcome["line"])
                state.codes[outcome["code"]] += 1
                if not rejected["filepath"].startswith("bad/"):
                    state.wrong.append(f"{rejected['filepath']} was rejected: {outcome['code']}")
    return list(left.values())


def check_bad(state: Soak, dependencies: Dependencies) -> None:
    """Check, within the retention period, that each bad image has failed."""
    while not state.stop.is_set() or state.bad:
        with state.lock:
            task_ids = list(state.bad)[:LINES]
        for task_id in task_ids:
            with suppress(Exception):
                task = dependencies.ledger.task(task_id)
                if task is None or task.state in {State.SUCCEEDED, State.SUPERSEDED, State.CANCELLED}:
                    state.wrong.append(f"{state.bad[task_id]} is {task and task.state}")
                elif task.state is not State.FAILED:
                    continue
                else:
                    state.codes[task.code or "none"] += 1
                del state.bad[task_id]
        sleep(0.5)


def sample(state: Soak, dependencies: Dependencies, watched: Mapping[str, Callable[[], int]], started: float) -> None:
    """Record the resident memory of each process and the number of keys in Redis, every SAMPLE_EVERY_S."""
    while not state.stop.wait(SAMPLE_EVERY_S):
        at = monotonic() - started
        for name, pid in watched.items():
            # The process may be dead or not yet restarted.
            with suppress(OSError, IndexError, StopIteration, NoRedis):
                state.samples[name].append((at, resident_mib(pid())))
        with suppress(Exception):
            state.samples["keys in Redis"].append((at, dependencies.redis.dbsize()))
            state.samples["accepted a second"].append((at, state.accepted / at))


def children(pid: int) -> list[int]:
    """Return the child processes, the oldest first."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()), key=start_ticks)


def start_ticks(pid: int) -> int:
    """Return the start of the process in clock ticks since boot; process ids are reused and give no order."""
    # The program's name, in ( ), may contain spaces; the start time is the 22nd field.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def report(
    state: Soak, dependencies: Dependencies, options: argparse.Namespace, *, seconds: float, drained_s: float
) -> bool:
    wrong = [*state.wrong, *wrong_records(state, dependencies)]
    keys = lasting_keys(dependencies)
    print(f"{seconds / 60:.1f} minutes on the {options.store} store, {len(state.kills)} kills")
    print(f"{state.accepted} images accepted, {state.accepted / seconds:.0f} a second, {len(state.newest)} filepaths")
    print("expected failures and rejections: " + ", ".join(f"{code} {n}" for code, n in state.codes.most_common()))
    print(f"wrong results: {len(wrong)}   all tasks finished {drained_s:.1f} s after the last add")
    for line in wrong[:10]:
        print(f"  {line}")
    is_flat = True
    for name in ("worker, never killed", "API process, never killed", "Redis"):
        before, after = quarter_medians(state.samples[name], seconds)
        is_flat = is_flat and after <= MAX_GROWTH * before
        print(f"{name:25} {before:6.0f} MiB in the second quarter, {after:6.0f} in the last")
    print(f"keys in Redis: {max(value for _, value in state.samples['keys in Redis']):.0f} at most, ", end="")
    print(f"{len(keys)} after the retention period: {' '.join(keys)}")
    if options.plot:
        from parts.timeline import draw_timeline  # noqa: PLC0415 - only a plot needs matplotlib

        draw_timeline(state.samples, state.kills, options.plot)
    return not wrong and is_flat and len(keys) <= MAX_LASTING_KEYS


def wrong_records(state: Soak, dependencies: Dependencies) -> list[str]:
    """Compare the store with the newest image of each filepath; bad images must not be stored."""
    dependencies.store.refresh()
    wrong = []
    paths = sorted(state.newest)
    for start in range(0, len(paths), 500):
        records = dependencies.store.records(paths[start : start + 500])
        for path in paths[start : start + 500]:
            record = records.get(path)
            if record is None or not np.array_equal(record.signatures[0], signature(state.newest[path])):
                wrong.append(f"{path} is {'missing' if record is None else 'another image'}")
    if (stored := dependencies.store.count()) != len(paths):
        wrong.append(f"{stored} filepaths are stored, {len(paths)} expected")
    return wrong


def lasting_keys(dependencies: Dependencies) -> list[str]:
    """Wait until the retention of finished tasks is over; return the remaining keys."""
    until = monotonic() + 2 * RETENTION_S
    while dependencies.redis.dbsize() > MAX_LASTING_KEYS and monotonic() < until:
        sleep(1)
    return sorted(key.decode(errors="replace") for key in dependencies.redis.scan_iter())


def quarter_medians(samples: list[tuple[float, float]], seconds: float) -> tuple[float, float]:
    """Return the medians of the second and of the last quarter."""
    second = [value for at, value in samples if seconds / 4 <= at < seconds / 2]
    last = [value for at, value in samples if at >= 3 * seconds / 4]
    return median(second), median(last)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    stores = ("elasticsearch", "embedded")
    parser.add_argument("--store", choices=stores, default=stores[1] if why_not() else stores[0])
    parser.add_argument("--plot", type=Path, help="SVG file to draw the memory to")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
