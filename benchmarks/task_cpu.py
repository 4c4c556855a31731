"""The CPU of a worker by thread and by stage of a task, beside the least that its libraries take.

One worker adds the same images by single adds and by a batch, in turns. They are fetched from a server with 50 ms
latency, and stored in the embedded store without local features. A stage's CPU is that of its thread, with the system
calls; the decoder processes are measured from /proc.

The least: decoding and the signature in this process; a GET of each image by urllib3 over one connection; a round trip
to Redis by redis-py. One thread does all of them, so nobody waits for the interpreter lock.

    PYTHONPATH=. python benchmarks/task_cpu.py [--photos FOLDER] [--images N] [--rounds N]
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import sleep, thread_time
from typing import NamedTuple

from parts.pipelines import (
    ROOT,
    WARM_UP,
    Counter,
    add_all,
    add_batch,
    arguments,
    cpu_s,
    image_server,
    named,
    service,
    store_settings,
    wait_for_count,
)
from urllib3 import HTTPConnectionPool
from urllib3.util import parse_url

from common.images.decode import Limits, decode
from common.images.signature import sign
from common.redis.client import connect
from dev.redis_server import RedisServer

WORKER = ROOT / "benchmarks" / "peers" / "staged_worker.py"
# Two of its files, so that they contain all of the run.
SETTLE_S = 1.2
ADDS: Mapping[str, Callable[[str, Mapping[str, str]], None]] = {"single adds": add_all, "batch": add_batch}
ROWS = (
    "decoder process",
    "tasks",
    "  ledger's begin",
    "  download",
    "    urllib3's urlopen",
    "  decoder exchange",
    "  wait for the writer",
    "  rest: SHA-256, record, spans, metrics",
    "Celery: trace of the tasks, threads",
    "Celery's and kombu's loop",
    "writer",
    "worker",
)


class CpuTimes(NamedTuple):
    """CPU seconds of a worker."""

    total: float
    stages: Mapping[str, float]
    threads: Mapping[str, float]


def main() -> None:
    options = arguments(__doc__, images=1600)
    names = sorted(path.name for path in options.photos.glob("*.jpg"))
    columns: dict[str, list[Mapping[str, float]]] = {kind: [] for kind in ADDS}
    with image_server(options.photos) as url, store_settings("embedded") as store:
        urls = {f"{n:06}": f"{url}/{names[n % len(names)]}" for n in range(options.images)}
        for number in range(options.rounds):
            for kind, add in ADDS.items():
                settings = {key: value.replace("ROUND", f"{kind}-{number}") for key, value in store.items()}
                columns[kind].append(worker_ms(urls, named(settings, "task"), add))
        least = {
            "decoding and the signature": median(decode_and_sign_ms(options.photos) for _ in range(3)),
            "a GET by urllib3": median(get_ms(url, names) for _ in range(3)),
            "a round trip to Redis": median(round_trip_ms() for _ in range(3)),
        }
    report(columns, least)


def worker_ms(
    urls: Mapping[str, str], store: Mapping[str, str], add: Callable[[str, Mapping[str, str]], None]
) -> Mapping[str, float]:
    """Return the CPU milliseconds of an image by row."""
    warm = dict(list(urls.items())[:WARM_UP])
    rest = {filepath: url for filepath, url in urls.items() if filepath not in warm}
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        environment = {**store, "REDIS_URL": redis.url, "MATCH_LOCAL_FEATURES": "false"}
        file = Path(home) / "cpu_times.json"
        with service(environment, workers=1, worker=[str(WORKER), str(file)]) as (api, processes):
            counter, pid = Counter(environment), processes["worker 0"].pid
            add(api, warm)
            wait_for_count(counter, len(warm))
            before = cpu_times(file, pid)
            add(api, rest)
            wait_for_count(counter, len(urls))
            return rows(before, cpu_times(file, pid), len(rest))


def cpu_times(file: Path, pid: int) -> CpuTimes:
    sleep(SETTLE_S)
    read = json.loads(file.read_text())
    return CpuTimes(cpu_s(pid), read["stages"], read["threads"])


def rows(before: CpuTimes, after: CpuTimes, images: int) -> Mapping[str, float]:
    def ms(later: float, earlier: float) -> float:
        return (later - earlier) * 1000 / images

    stages = {name: ms(after.stages[name], before.stages[name]) for name in after.stages}
    threads = {name: ms(spent, before.threads.get(name, 0.0)) for name, spent in after.threads.items()}
    loop, writer = threads.pop("MainThread"), threads.pop("writer")
    inner = ("ledger's begin", "download", "decoder exchange", "wait for the writer")
    total, task = ms(after.total, before.total), stages["task"]
    others = sum(threads.values())
    values = (
        total - others - loop - writer,
        task,
        stages["ledger's begin"],
        stages["download"],
        stages["urllib3's urlopen"],
        stages["decoder exchange"],
        stages["wait for the writer"],
        task - sum(stages[name] for name in inner),
        others - task,
        loop,
        writer,
        total,
    )
    return dict(zip(ROWS, values, strict=True))


def decode_and_sign_ms(folder: Path) -> float:
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    started = thread_time()
    for data in images:
        sign(decode(data, Limits()).pixels)
    return (thread_time() - started) * 1000 / len(images)


def get_ms(url: str, names: Sequence[str]) -> float:
    address = parse_url(url)
    with HTTPConnectionPool(address.host or "", address.port) as pool:
        pool.request("GET", f"/{names[0]}")
        started = thread_time()
        for name in names[:100]:
            assert pool.request("GET", f"/{name}").data
        return (thread_time() - started) * 1000 / len(names[:100])


def round_trip_ms(calls: int = 1000) -> float:
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as server:
        redis = connect(server.url)
        redis.ping()
        started = thread_time()
        for _ in range(calls):
            redis.ping()
        spent = thread_time() - started
        redis.close()
    return spent * 1000 / calls


def report(columns: Mapping[str, Sequence[Mapping[str, float]]], least: Mapping[str, float]) -> None:
    print(f"{'CPU of an image, ms: median (each round)':42} " + " ".join(f"{kind:>28}" for kind in columns))
    for row in ROWS:
        cells = []
        for rounds in columns.values():
            values = [each[row] for each in rounds]
            cells.append(f"{median(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})")
        print(f"{row:42} " + " ".join(f"{cell:>28}" for cell in cells))
    print("\nthe least, in one thread of one process")
    for name, ms in least.items():
        print(f"{name:42} {ms:6.2f} ms")
    compute = least["decoding and the signature"]
    for kind, rounds in columns.items():
        print(f"{kind}: worker / decoding and the signature {median(each['worker'] for each in rounds) / compute:.2f}")


if __name__ == "__main__":
    main()
