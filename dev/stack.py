"""The whole service on this machine, until Ctrl-C: Redis, API, workers and flower.

`make dev` runs `python -m dev.stack`. Everything listens on loopback, except an API with MATCH_API_HOST. All files are
written to MATCH_HOME.
"""

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from threading import Event
from time import monotonic
from types import FrameType

from redis import Redis

from api.access.keys import Keyring
from common.config import Settings
from common.errors import ConfigError, QueueError
from common.queue.stats import read_stats
from common.redis.client import connect
from common.redis.sentinels import SCHEME
from dev.asking import answers
from dev.greeting import greet, local_address
from dev.ports import LOOPBACK, TOP_PORT, listen, nearest_free
from dev.programs import CannotStart, Program, Running, say, stop_all
from dev.redis_server import NoRedis, RedisServer
from dev.scrape_targets import WORKER_METRICS_PORT, worker_ports, write_targets

FLOWER_PORT = 5555
# The web page shows what it finds.
THUMBNAILS_PX = 256
CHECK_INTERVAL_S = 0.2
READY_WITHIN_S = 30.0
# Starts of a program in a row that may fail.
TRIES = 5
# A start needs more than this.
SPACE_BYTES = 1024 * 1024
FULL = {errno.ENOSPC, errno.EDQUOT}
# Files and folders that earlier versions created with the modes of the umask.
PRIVATE = ("logs", "redis", "prometheus", "match.db*")


def programs(settings: Settings, *, metrics_ports: Sequence[int]) -> list[Program]:
    """Return the API, and a worker for each of the `metrics_ports`."""
    environment = shared(settings)
    python = sys.executable
    return [
        Program("api", [python, "-m", "api"], environment),
        *(
            Program(
                f"worker-{number}",
                [python, "-m", "workers", "-n", f"worker-{number}@%h"],
                environment | {"MATCH_WORKER_METRICS_PORT": str(port), "MATCH_WORKER_METRICS_HOST": LOOPBACK},
            )
            for number, port in enumerate(metrics_ports, 1)
        ),
    ]


def shared(settings: Settings) -> dict[str, str]:
    """Return the environment variables of all programs, in addition to those of this process."""
    return {
        "REDIS_URL": settings.redis_url,
        "MATCH_STORE_URL": settings.store_url or "",
        "MATCH_API_HOST": settings.listens_on.strip("[]"),
        "WORKER_COUNT": str(settings.worker_count),
        "PYTHONUNBUFFERED": "1",
        "MATCH_LOG_FORMAT": settings.log_format,
        "MATCH_THUMBNAILS_PX": str(settings.thumbnails_px),
    }


def flower(settings: Settings, port: int) -> Program:
    """Return flower, read-only: its changes to workers and messages would bypass the ledger."""
    # 10,000 messages take 28 MiB of memory; the default is ten times as many.
    flags = [f"--address={LOOPBACK}", f"--port={port}", "--read-only", "--max-tasks=10000"]
    # The URL is not on the command line, where every user of the machine could read its password.
    # Without the parameter flower does not verify the certificate of a Redis that uses TLS.
    checked = "?ssl_cert_reqs=required" if settings.redis_url.startswith("rediss://") else ""
    environment = shared(settings) | {"CELERY_BROKER_URL": settings.redis_url + checked}
    return Program("flower", [sys.executable, "-m", "celery", "flower", *flags], environment)


def has_flower(settings: Settings) -> bool:
    """Return whether flower supports this Redis: it has no option for the service name of Sentinels."""
    return not settings.redis_url.startswith(f"{SCHEME}://")


def local_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings with the defaults of `make dev`, except its Redis."""
    settings = Settings.from_env(environ)
    if settings.api_host is None:
        # Also with API keys: a development stack is open to other machines only on request.
        settings = replace(settings, api_host=LOOPBACK)
    if not environ.get("MATCH_STORE_URL") and not environ.get("ELASTICSEARCH_URL"):
        settings = replace(settings, store_url=f"sqlite:///{settings.home.resolve() / 'match.db'}")
    if not environ.get("MATCH_LOG_FORMAT"):
        settings = replace(settings, log_format="text")
    if not environ.get("WORKER_COUNT"):
        settings = replace(settings, worker_count=min(settings.worker_count, os.cpu_count() or 1))
    if not environ.get("MATCH_WORKER_METRICS_PORT"):
        settings = replace(settings, worker_metrics_port=WORKER_METRICS_PORT)
    if not environ.get("MATCH_THUMBNAILS_PX"):
        settings = replace(settings, thumbnails_px=THUMBNAILS_PX)
    return settings


def read_port(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return a port of this stack, which the settings of the service do not contain, from the environment."""
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= TOP_PORT:
        raise CannotStart(f"{name} must be a whole number from 1 to {TOP_PORT}")
    return int(text)


def check_port(host: str, port: int, setting: str, *, reserved: int) -> None:
    """Raise CannotStart with a free port in its message when the port is in use.

    `reserved` is a port that this stack uses itself.
    """
    try:
        listen(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            settings = "MATCH_API_HOST and PORT" if setting == "PORT" else setting
            raise CannotStart(f"{settings}: cannot listen on {host}, port {port}: {error.strerror}") from error
        free = nearest_free(host, port, reserved=reserved)
        raise CannotStart(f"port {port} is in use; to use another: {setting}={free} make dev") from error


@contextmanager
def only_one(home: Path) -> Iterator[Path]:
    """Lock the folder for this stack, and yield the folder of its logs."""
    logs = home / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("w")
    except OSError as error:
        raise CannotStart(f"MATCH_HOME {home} is not a usable folder: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotStart(
                f"{home} is in use by another stack: stop it, or set MATCH_HOME to another folder"
            ) from error
        yield logs


def keep_private(home: Path) -> None:
    """Make all files private that this process, its children and earlier versions write."""
    os.umask(0o077)
    for path in chain.from_iterable(home.glob(pattern) for pattern in PRIVATE):
        path.chmod(0o700 if path.is_dir() else 0o600)


def check_space(home: Path) -> None:
    """Raise CannotStart if the disk of the folder is full."""
    path = home / "space"
    try:
        with path.open("wb") as file:
            file.write(bytes(SPACE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in FULL:
            raise CannotStart(f"the disk of MATCH_HOME {home} is full: {error.strerror}") from error
        raise
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def redis_for(environ: Mapping[str, str], home: Path) -> Iterator[RedisServer | None]:
    """Run a Redis, unless REDIS_URL names one."""
    if environ.get("REDIS_URL"):
        yield None
        return
    server = RedisServer(home / "redis", has_password=True)
    try:
        yield server.start()
    finally:
        server.stop()


def watch(running: Sequence[Running], redis: RedisServer | None, stop: Event) -> None:
    """Restart programs that exit, until `stop` is set."""
    while not stop.wait(CHECK_INTERVAL_S):
        for program in running:
            program.restart_if_exited()
        if redis is not None and not redis.running():
            say("Redis exited and is restarted")
            redis.start()


def run(environ: Mapping[str, str], stop: Event) -> None:
    """Run the stack until `stop` is set."""
    settings = local_settings(environ)
    flower_port = read_port(environ, "FLOWER_PORT", FLOWER_PORT)
    if settings.api_keys_file is not None:
        # A file that the API cannot read is reported before anything is started.
        Keyring(settings.api_keys_file)
    keep_private(settings.home)
    with only_one(settings.home) as logs:
        check_space(settings.home)
        check_port(settings.listens_on, settings.port, "PORT", reserved=flower_port)
        check_port(LOOPBACK, flower_port, "FLOWER_PORT", reserved=settings.port)
        with redis_for(environ, settings.home) as redis:
            if redis is not None:
                settings = replace(settings, redis_url=redis.url)
            workers = os.cpu_count() or 1
            ports = worker_ports(settings.worker_metrics_port, workers, taken=(settings.port, flower_port))
            write_targets(settings.home, api=local_address(settings), worker_ports=ports)
            running: list[Running] = []
            try:
                for program in programs(settings, metrics_ports=ports):
                    running.append(Running(program, logs, tries=TRIES))  # noqa: PERF401 - one that fails stops the others
                shown_port = flower_port if has_flower(settings) else None
                greet(settings, flower_port=shown_port, worker_ports=ports, logs=logs)
                ready = wait_until_ready(settings, running, stop, workers=workers)
                if not stop.is_set():
                    if has_flower(settings):
                        # Last, because flower queries the workers once, at its start.
                        running.append(Running(flower(settings, flower_port), logs, tries=TRIES))
                    say("ready" if ready else "not ready yet, see the logs")
                watch(running, redis, stop)
            finally:
                say("stopping …")
                stop_all(running)


def wait_until_ready(settings: Settings, running: Sequence[Running], stop: Event, *, workers: int) -> bool:
    """Wait until searches are served and all workers run, at most for READY_WITHIN_S or until `stop` is set.

    Return whether searches are served.
    """
    deadline = monotonic() + READY_WITHIN_S
    serves = False
    with closing(connect(settings.redis_url)) as redis:
        while not stop.wait(CHECK_INTERVAL_S) and monotonic() < deadline:
            for program in running:
                program.restart_if_exited()
            serves = serves or answers(f"http://{local_address(settings)}/readyz", within_s=2)
            if serves and live_workers(redis) >= workers:
                break
    return serves


def live_workers(redis: Redis) -> int:
    """Return the number of workers with a heartbeat, 0 if Redis does not answer."""
    with suppress(QueueError):
        return read_stats(redis).workers
    return 0


def main() -> int:
    """Run the stack in the foreground; return the exit status."""
    stop = Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, end)
    # A closed terminal: the programs have sessions of their own and would otherwise keep running.
    signal.signal(signal.SIGHUP, end)
    signal.signal(signal.SIGTERM, end)
    try:
        run(os.environ, stop)
    except (CannotStart, ConfigError, NoRedis) as error:
        print(f"make dev: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"make dev: {error.filename or 'MATCH_HOME'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
