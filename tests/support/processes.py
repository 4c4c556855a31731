"""The service's programs as processes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.asking import answers
from dev.ports import free_port
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
STOP_WITHIN_S = 90
RUN_WITHIN_S = 90
NO_SETTINGS: Mapping[str, str] = {}


def run_python(*arguments: str, environment: Mapping[str, str] = NO_SETTINGS) -> "subprocess.CompletedProcess[str]":
    """Run Python with these arguments to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN_S,
        check=False,
    )


@contextmanager
def running(*arguments: str, environment: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run Python with these arguments until the context ends; SIGTERM stops it."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_WITHIN_S)


@dataclass(frozen=True)
class Api:
    """A running API; its processes are children of `pid`."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving_api(folder: Path, environment: Mapping[str, str]) -> Iterator[Api]:
    """Run an API of one process with a store in the folder; the context begins once it responds."""
    port = free_port()
    environment = {
        "PORT": f"{port}",
        "MATCH_API_HOST": "127.0.0.1",
        "WORKER_COUNT": "1",
        "MATCH_STORE_URL": f"sqlite:///{folder}/match.db",
        **environment,
    }
    log = folder / "api.log"
    with running("-m", "api", environment=environment, log=log) as process:
        api = Api(port, process.pid, log)
        wait_until(lambda: answers(f"{api.url}/livez", within_s=5), "the API answers")
        yield api
    assert process.returncode == 0
