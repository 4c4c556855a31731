"""The service's programs as child processes."""

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
STOP_WITHIN_S = 180


@contextmanager
def running(*arguments: str, environment: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run Python with these arguments until the `with` block ends; SIGTERM stops it."""
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
    """A running API; its gunicorn workers are children of `pid`."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving_api(folder: Path, environment: Mapping[str, str]) -> Iterator[Api]:
    """Run an API with one gunicorn worker and a store in `folder`; SIGTERM must end it with status 0."""
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
