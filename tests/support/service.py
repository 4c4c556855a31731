"""The service as processes, each restarted when it exits, as in `make dev`."""

import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Self

from celery import Celery

from common.queue.broker import queue_settings
from dev.asking import answers
from dev.ports import free_port
from dev.programs import Program, Running
from support.waiting import wait_until

TICKS = os.sysconf("SC_CLK_TCK")
LOOK_EVERY_S = 0.05


class Service:
    """API and workers with the settings `environment` until the context ends; logs are in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self._running: list[Running] = []
        self._kept: list[Running] = []
        self._pids: defaultdict[Running, set[int]] = defaultdict(set)
        self._lock = Lock()
        self._stop = Event()
        self._keeper = Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._keeper.join()
        for one in self._running:
            if one._process.poll() is None:
                one._process.kill()
                one._process.wait()

    def start_api(self, **settings: str) -> str:
        """Start an API, and return its URL once it responds."""
        port = free_port()
        self.start("api", "-m", "api", PORT=str(port), **settings)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/livez", within_s=5), "the API answers")
        return url

    def start_worker(self, *arguments: str, **settings: str) -> Running:
        """Start a worker; `arguments` run another Python program instead of `workers`."""
        return self.start("worker", *(arguments or ("-m", "workers")), "-n", f"w{len(self._running)}@%h", **settings)

    def start(self, name: str, *arguments: str, **settings: str) -> Running:
        """Start a program, and restart it when it exits."""
        program = Program(
            f"{name}-{len(self._running)}", [sys.executable, *arguments], {**self.environment, **settings}
        )
        with self._lock:
            one = Running(program, self.folder)
            self._running.append(one)
            self._kept.append(one)
        return one

    def running(self, name: str) -> list[Running]:
        """Return the programs of that name."""
        return [one for one in self._running if one.program.name.startswith(f"{name}-")]

    def let_go(self, one: Running) -> None:
        """Do not restart this program again."""
        with self._lock:
            self._kept.remove(one)

    def starts(self, one: Running) -> int:
        """Return the number of starts of the program."""
        return len(self._pids[one])

    def log(self, one: Running) -> str:
        """Return the program's log."""
        return (self.folder / f"{one.program.name}.log").read_text(errors="replace")

    def _keep(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            with self._lock:
                for one in self._kept:
                    one.look()
                    self._pids[one].add(one.pid)


def wait_for_workers(redis_url: str, count: int) -> None:
    """Wait until `count` workers respond. Before that, SIGTERM ends a worker without a warm shutdown."""
    with Celery(broker=redis_url, set_as_current=False) as asking:
        asking.conf.update(queue_settings(redis_url))
        wait_until(lambda: len(asking.control.ping(timeout=0.5)) == count, f"{count} workers answer")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    """Return the memory that a process has resident, in MiB."""
    return _status_mib(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has had resident, in MiB."""
    return _status_mib(pid, "VmHWM")


def _status_mib(pid: int, name: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) / 1024
