"""The service at full rate for a while: bad input, a kill a minute, and what its memory does meanwhile.

Pictures are added by URL as fast as the workers take them, over and over to the same filepaths; one in twenty cannot
become a picture. Once a minute a worker, a process of the API or Redis is killed; one worker and one API process are
spared, so that a leak would show. At the end the store is read filepath by filepath.

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
from parts.timeline import draw_timeline

from common.config import Settings
from common.queue.tasks import State
from common.wiring import Dependencies, build_dependencies
from dev.elasticsearch_node import Node, why_not
from dev.redis_server import NoRedis, RedisServer
from support.http_servers import serving
from support.image_server import ImageServer, signature
from support.service import Service, resident_mib
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = 4
LINES = 100
FILEPATHS = 2_500
PICTURES = 1_000
BAD_EVERY = 20
# Work is always there, and Redis does not fill with it.
MOST_OPEN = 2_000
KILL_EVERY_S = 60.0
SAMPLE_EVERY_S = 2.0
KEPT_S = 60
# More than this from the first half to the end is a leak.
GROWTH = 1.15
# The names of queues and of what stands for ever, leases, and what lives for a few seconds.
FEW_KEYS = 20
SETTINGS = {
    "MATCH_API_HOST": "127.0.0.1",
    "WORKER_COUNT": "2",
    "MATCH_VISIBILITY_TIMEOUT_S": "30",
    "MATCH_FETCH_TIMEOUT_S": "5",
    "MATCH_DECODE_TIMEOUT_S": "5",
    "MATCH_STORE_HOLD_S": "10",
    "MATCH_FINISHED_KEEP_S": f"{KEPT_S}",
    "MATCH_FAILED_KEEP_S": f"{KEPT_S}",
    "MATCH_LOG_LEVEL": "warning",
}


@dataclass
class Soak:
    """What was asked for and what was seen; every client has filepaths of its own, so that each knows its newest."""

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
    with tempfile.TemporaryDirectory() as folder, store(options.store, Path(folder)) as place:
        home = Path(folder)
        (home / "logs").mkdir()
        with serving(ImageServer()) as pictures, RedisServer(home / "redis") as redis:
            environment = SETTINGS | place | {"REDIS_URL": redis.url, "MATCH_FETCH_ALLOW": "127.0.0.1"}
            parts = build_dependencies(Settings.from_env(environment))
            parts.store.prepare()
            with Service(home / "logs", environment) as service:
                ok = soak(service, redis, parts, pictures.url, options)
            parts.close()
    return 0 if ok else 1


@contextmanager
def store(name: str, folder: Path) -> Iterator[dict[str, str]]:
    if name == "embedded":
        yield {"MATCH_STORE_URL": f"sqlite:///{folder}/match.db"}
        return
    with Node(heap_mib=1024) as node:
        yield {"MATCH_STORE_URL": "", "ELASTICSEARCH_URL": node.url, "ELASTICSEARCH_INDEX": "soak"}


def soak(service: Service, redis: RedisServer, parts: Dependencies, pictures: str, options: argparse.Namespace) -> bool:
    url = service.start_api()
    workers = [service.start_worker() for _ in range(max(2, os.cpu_count() or 1))]
    [api] = service.running("api")
    seen = Soak()
    began = monotonic()
    watched: Mapping[str, Callable[[], int]] = {
        "worker, spared": lambda: workers[0].pid,
        "worker, killed": lambda: workers[1].pid,
        "API process, spared": lambda: children(api.pid)[0],
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
        busy = [pool.submit(add_for_ever, seen, url, pictures, parts, client) for client in range(CLIENTS)]
        busy += [
            pool.submit(check_bad, seen, parts),
            pool.submit(sample, seen, parts, watched, began),
        ]
        until = began + 60 * options.minutes
        next_kill = began + KILL_EVERY_S / 2
        while monotonic() < until:
            if monotonic() >= next_kill:
                next_kill += KILL_EVERY_S
                name, kill = next(victims)
                seen.kills.append((monotonic() - began, name))
                kill()
            for one in busy:
                if one.done():
                    # Only by what broke it: it goes on until told to stop.
                    one.result()
            sleep(0.2)
        seen.stop.set()
        for one in busy:
            one.result()
    seconds = monotonic() - began
    drained_s = wait_until(lambda: not parts.ledger.open_count(), "all work ends", within_s=300)
    return report(seen, parts, options, seconds=seconds, drained_s=drained_s)


def add_for_ever(seen: Soak, url: str, pictures: str, parts: Dependencies, client: int) -> None:
    """Add lines of pictures; what has no answer, or is not accepted, is added again before anything else."""
    dice = np.random.default_rng(client)
    numbers = count()
    while not seen.stop.is_set():
        with suppress(Exception):
            while parts.ledger.open_count() > MOST_OPEN and not seen.stop.is_set():
                sleep(0.05)
        lines = [line(pictures, client, next(numbers), dice) for _ in range(LINES)]
        while lines and not seen.stop.is_set():
            lines = post(seen, url, lines)


def line(pictures: str, client: int, number: int, dice: np.random.Generator) -> dict[str, str]:
    if number % BAD_EVERY == 0:
        ends = ("/none", "/page", "/half", ":1/1")
        return {"filepath": f"bad/{client}/{number}", "url": pictures + ends[int(dice.integers(len(ends)))]}
    return {"filepath": f"{client}/{number % FILEPATHS}", "url": f"{pictures}/{dice.integers(PICTURES)}"}


def post(seen: Soak, url: str, lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the lines that were not accepted."""
    try:
        body = "\n".join(json.dumps(line) for line in lines)
        answer = requests.post(
            f"{url}/add/batch", data=body, headers={"Content-Type": "application/x-ndjson"}, timeout=60
        )
        outcomes = [json.loads(one) for one in answer.text.splitlines()] if answer.ok else []
    except (requests.RequestException, ValueError):
        outcomes = []
    if not outcomes:
        sleep(0.5)
    left = dict(enumerate(lines, 1))
    with seen.lock:
        for outcome in outcomes:
            if "task" in outcome:
                line = left.pop(outcome["line"])
                seen.accepted += 1
                if line["filepath"].startswith("bad/"):
                    seen.bad[outcome["task"]["id"]] = line["filepath"]
                else:
                    seen.newest[line["filepath"]] = int(line["url"].rpartition("/")[2])
            elif "retry_after" not in outcome and outcome["line"] in left:
                # Refused at the door, with its reason.
                refused = left.pop(outcome["line"])
                seen.codes[outcome["code"]] += 1
                if not refused["filepath"].startswith("bad/"):
                    seen.wrong.append(f"{refused['filepath']} was refused: {outcome['code']}")
    return list(left.values())


def check_bad(seen: Soak, parts: Dependencies) -> None:
    """Read of each bad picture that it failed, before that is forgotten."""
    while not seen.stop.is_set() or seen.bad:
        with seen.lock:
            waiting = list(seen.bad)[:LINES]
        for task_id in waiting:
            with suppress(Exception):
                task = parts.ledger.task(task_id)
                if task is None or task.state in {State.SUCCEEDED, State.SUPERSEDED, State.CANCELLED}:
                    seen.wrong.append(f"{seen.bad[task_id]} is {task and task.state}")
                elif task.state is not State.FAILED:
                    continue
                else:
                    seen.codes[task.code or "none"] += 1
                del seen.bad[task_id]
        sleep(0.5)


def sample(seen: Soak, parts: Dependencies, watched: Mapping[str, Callable[[], int]], began: float) -> None:
    """Note every SAMPLE_EVERY_S what each process has resident, and what Redis holds."""
    while not seen.stop.wait(SAMPLE_EVERY_S):
        at = monotonic() - began
        for name, pid in watched.items():
            # Dead now, or not there again yet.
            with suppress(OSError, IndexError, StopIteration, NoRedis):
                seen.samples[name].append((at, resident_mib(pid())))
        with suppress(Exception):
            seen.samples["keys in Redis"].append((at, parts.redis.dbsize()))
            seen.samples["accepted a second"].append((at, seen.accepted / at))


def children(pid: int) -> list[int]:
    """Return the processes of the API, the eldest first."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()), key=started)


def started(pid: int) -> int:
    """Return when the process started, in ticks since the machine did: numbers of processes begin anew."""
    # The program's name, in ( ), may hold spaces; the time is the 22nd field.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def report(seen: Soak, parts: Dependencies, options: argparse.Namespace, *, seconds: float, drained_s: float) -> bool:
    wrong = [*seen.wrong, *not_as_asked(seen, parts)]
    keys = keys_when_all_is_forgotten(parts)
    print(f"{seconds / 60:.1f} minutes on the {options.store} store, {len(seen.kills)} kills")
    print(f"{seen.accepted} pictures accepted, {seen.accepted / seconds:.0f} a second, to {len(seen.newest)} filepaths")
    print("failed or refused, as they should: " + ", ".join(f"{code} {n}" for code, n in seen.codes.most_common()))
    print(f"not as asked for: {len(wrong)}   all done {drained_s:.1f} s after the last add")
    for line in wrong[:10]:
        print(f"  {line}")
    flat = True
    for name in ("worker, spared", "API process, spared", "Redis"):
        before, after = halves(seen.samples[name], seconds)
        flat = flat and after <= GROWTH * before
        print(f"{name:20} {before:6.0f} MiB in the second quarter, {after:6.0f} in the last")
    print(f"keys in Redis: {max(value for _, value in seen.samples['keys in Redis']):.0f} at most, ", end="")
    print(f"{len(keys)} when all is forgotten: {' '.join(keys)}")
    draw_timeline(seen.samples, seen.kills, options.plot)
    print(f"drawn: {options.plot}")
    return not wrong and flat and len(keys) <= FEW_KEYS


def not_as_asked(seen: Soak, parts: Dependencies) -> list[str]:
    """Read every filepath from the store: its newest picture, and nothing of what was bad."""
    parts.store.refresh()
    wrong = []
    paths = sorted(seen.newest)
    for start in range(0, len(paths), 500):
        records = parts.store.records(paths[start : start + 500])
        for path in paths[start : start + 500]:
            record = records.get(path)
            if record is None or not np.array_equal(record.signatures[0], signature(seen.newest[path])):
                wrong.append(f"{path} is {'missing' if record is None else 'another picture'}")
    if (stored := parts.store.count()) != len(paths):
        wrong.append(f"{stored} filepaths are stored")
    return wrong


def keys_when_all_is_forgotten(parts: Dependencies) -> list[str]:
    """Wait until what ended is forgotten, and return the keys that are left."""
    until = monotonic() + 2 * KEPT_S
    while parts.redis.dbsize() > FEW_KEYS and monotonic() < until:
        sleep(1)
    return sorted(key.decode(errors="replace") for key in parts.redis.scan_iter())


def halves(samples: list[tuple[float, float]], seconds: float) -> tuple[float, float]:
    """Return the median of the second quarter of the time, and of the last."""
    second = [value for at, value in samples if seconds / 4 <= at < seconds / 2]
    last = [value for at, value in samples if at >= 3 * seconds / 4]
    return median(second), median(last)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    stores = ("elasticsearch", "embedded")
    parser.add_argument("--store", choices=stores, default=stores[1] if why_not() else stores[0])
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "soak.svg")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
