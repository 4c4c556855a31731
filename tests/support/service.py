"""The service as child processes, each restarted after it exits, as in `make dev`."""

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
POLL_S = 0.05


class Service:
    """A context manager for APIs and workers with the settings `environment`; logs are in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self._running: list[Running] = []
        self._supervised: list[Running] = []
        self._pids: defaultdict[Running, set[int]] = defaultdict(set)
        self._lock = Lock()
        self._stop = Event()
        self._supervisor = Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Self:
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._supervisor.join()
        for running in self._running:
            if running._process.poll() is None:
                running._process.kill()
                running._process.wait()

    def start_api(self, **settings: str) -> str:
        """Start an API, and return its URL when it answers."""
        port = free_port()
        self.start("api", "-m", "api", PORT=str(port), **settings)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/livez", within_s=5), "the API answers")
        return url

    def start_worker(self, *arguments: str, **settings: str) -> Running:
        """Start a worker; `arguments` for Python replace `-m workers`."""
        return self.start("worker", *(arguments or ("-m", "workers")), "-n", f"w{len(self._running)}@%h", **settings)

    def start(self, name: str, *arguments: str, **settings: str) -> Running:
        """Start Python with these arguments, and restart it after each exit."""
        program = Program(
            f"{name}-{len(self._running)}", [sys.executable, *arguments], {**self.environment, **settings}
        )
        with self._lock:
            running = Running(program, self.folder)
            self._running.append(running)
            self._supervised.append(running)
        return running

    def running(self, name: str) -> list[Running]:
        """Return the programs with this name."""
        return [running for running in self._running if running.program.name.startswith(f"{name}-")]

    def stop(self, running: Running, *, within_s: float) -> int:
        """Send SIGTERM to a program, and return its exit status; it is not restarted."""
        with self._lock:
            self._supervised.remove(running)
        running.ask_to_stop()
        return running._process.wait(within_s)

    def starts(self, running: Running) -> int:
        """Return the number of times that the program was started."""
        return len(self._pids[running])

    def log(self, running: Running) -> str:
        """Return the program's log."""
        return (self.folder / f"{running.program.name}.log").read_text(errors="replace")

    def _supervise(self) -> None:
        while not self._stop.wait(POLL_S):
            with self._lock:
                for running in self._supervised:
                    running.restart_if_exited()
                    self._pids[running].add(running.pid)


def wait_for_workers(redis_url: str, count: int) -> None:
    """Return when `count` workers answer. Before that, SIGTERM ends a starting worker at once."""
    with Celery(broker=redis_url, set_as_current=False) as client:
        client.conf.update(queue_settings(redis_url))
        wait_until(lambda: len(client.control.ping(timeout=0.5)) == count, f"{count} workers answer")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    return _status_mib(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """Return the peak resident memory of a process in MiB."""
    return _status_mib(pid, "VmHWM")


def _status_mib(pid: int, name: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) / 1024
