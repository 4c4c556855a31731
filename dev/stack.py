"""The whole service on this machine: Redis, API, workers and flower, kept running until Ctrl-C.

`python -m dev.stack` is what `make dev` runs. Everything listens on loopback, save that MATCH_API_HOST opens the API to
others; everything written is in MATCH_HOME.
"""

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
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
from dev.greeting import greet, reached_at
from dev.ports import LOOPBACK, TOP_PORT, listen, nearest_free
from dev.programs import CannotStart, Program, Running, say, stop_all
from dev.redis_server import NoRedis, RedisServer

FLOWER_PORT = 5555
LOOK_EVERY_S = 0.2
READY_WITHIN_S = 30.0


def programs(settings: Settings, *, workers: int) -> list[Program]:
    """Return what does the work beside Redis: the API and the workers."""
    environment = shared(settings)
    python = sys.executable
    return [
        Program("api", [python, "-m", "api"], environment),
        *(
            Program(f"worker-{number}", [python, "-m", "workers", "-n", f"worker-{number}@%h"], environment)
            for number in range(1, workers + 1)
        ),
    ]


def shared(settings: Settings) -> dict[str, str]:
    """Return the environment that all programs have beyond ours."""
    return {
        "REDIS_URL": settings.redis_url,
        "MATCH_STORE_URL": settings.store_url or "",
        "MATCH_API_HOST": settings.listens_on.strip("[]"),
        "WORKER_COUNT": str(settings.worker_count),
        "PYTHONUNBUFFERED": "1",
        "MATCH_LOG_FORMAT": settings.log_format,
    }


def flower(settings: Settings, port: int) -> Program:
    """Return flower, which shows and changes nothing: what it would do to workers and messages goes past the ledger."""
    # It keeps 10,000 messages in memory, 28 MiB; by default it would be ten times as much.
    flags = [f"--address={LOOPBACK}", f"--port={port}", "--read-only", "--max-tasks=10000"]
    # By the environment, not the command line: a password in the URL is not for every user of the machine to read.
    # It checks the certificate of a Redis by TLS only where the URL asks for it.
    checked = "?ssl_cert_reqs=required" if settings.redis_url.startswith("rediss://") else ""
    environment = shared(settings) | {"CELERY_BROKER_URL": settings.redis_url + checked}
    return Program("flower", [sys.executable, "-m", "celery", "flower", *flags], environment)


def has_flower(settings: Settings) -> bool:
    """Say whether flower can look at this Redis: it cannot be told which service its Sentinels watch."""
    return not settings.redis_url.startswith(f"{SCHEME}://")


def local_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings with what `make dev` chooses where the environment does not, save its own Redis."""
    settings = Settings.from_env(environ)
    if settings.api_host is None:
        # Also with keys: what is tried out is for others when somebody says so.
        settings = replace(settings, api_host=LOOPBACK)
    if not environ.get("MATCH_STORE_URL") and not environ.get("ELASTICSEARCH_URL"):
        settings = replace(settings, store_url=f"sqlite:///{settings.home.resolve() / 'match.db'}")
    if not environ.get("MATCH_LOG_FORMAT"):
        # People read it here.
        settings = replace(settings, log_format="text")
    if not environ.get("WORKER_COUNT"):
        settings = replace(settings, worker_count=min(settings.worker_count, os.cpu_count() or 1))
    return settings


def read_port(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return the port that the environment names; it is this stack's alone, not one of the service's settings."""
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= TOP_PORT:
        raise CannotStart(f"{name} must be a whole number from 1 to {TOP_PORT}")
    return int(text)


def check_port(host: str, port: int, setting: str, *, also_taken: int) -> None:
    """Raise CannotStart when something listens on the port already, naming one where nothing does.

    `also_taken` is a port that this stack takes itself.
    """
    try:
        listen(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            named = "MATCH_API_HOST and PORT" if setting == "PORT" else setting
            raise CannotStart(f"cannot listen on {host}, port {port}, see {named}: {error.strerror}") from error
        free = nearest_free(host, port, but=also_taken)
        raise CannotStart(f"port {port} is taken: choose another, for instance {setting}={free} make dev") from error


@contextmanager
def only_one(home: Path) -> Iterator[Path]:
    """Hold the folder for this stack alone; gives the folder of its logs."""
    logs = home / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("w")
    except OSError as error:
        raise CannotStart(f"MATCH_HOME {home} cannot be used as a folder: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotStart(f"another stack uses {home}: stop it, or choose another MATCH_HOME") from error
        yield logs


@contextmanager
def redis_for(environ: Mapping[str, str], home: Path) -> Iterator[RedisServer | None]:
    """Run a Redis of our own, unless REDIS_URL names one."""
    if environ.get("REDIS_URL"):
        yield None
        return
    server = RedisServer(home / "redis")
    try:
        yield server.start()
    finally:
        server.stop()


def watch(running: Sequence[Running], redis: RedisServer | None, stop: Event) -> None:
    """Keep everything running until `stop` is set."""
    while not stop.wait(LOOK_EVERY_S):
        for one in running:
            one.look()
        if redis is not None and not redis.running():
            say("Redis ended and is started again")
            redis.start()


def run(environ: Mapping[str, str], stop: Event) -> None:
    """Run the stack until `stop` is set."""
    settings = local_settings(environ)
    flower_port = read_port(environ, "FLOWER_PORT", FLOWER_PORT)
    if settings.api_keys_file is not None:
        # The API would end over keys that it cannot read: told here, it is told before anything runs.
        Keyring(settings.api_keys_file)
    with only_one(settings.home) as logs:
        check_port(settings.listens_on, settings.port, "PORT", also_taken=flower_port)
        check_port(LOOPBACK, flower_port, "FLOWER_PORT", also_taken=settings.port)
        with redis_for(environ, settings.home) as redis:
            if redis is not None:
                settings = replace(settings, redis_url=redis.url)
            workers = os.cpu_count() or 1
            running: list[Running] = []
            try:
                running.extend(Running(program, logs) for program in programs(settings, workers=workers))
                greet(settings, flower_port=flower_port if has_flower(settings) else None, logs=logs)
                ready = wait_until_ready(settings, running, stop, workers=workers)
                if not stop.is_set():
                    if has_flower(settings):
                        # It asks the workers when it starts: those that are starting too would not answer.
                        running.append(Running(flower(settings, flower_port), logs))
                    say("ready" if ready else "not ready yet: the logs tell what is missing")
                watch(running, redis, stop)
            finally:
                say("stopping …")
                stop_all(running)


def wait_until_ready(settings: Settings, running: Sequence[Running], stop: Event, *, workers: int) -> bool:
    """Return whether searches are served, within the time that a start takes, or when `stop` is set.

    Where they are, it waits for the workers as well.
    """
    deadline = monotonic() + READY_WITHIN_S
    serves = False
    with closing(connect(settings.redis_url)) as redis:
        while not stop.wait(LOOK_EVERY_S) and monotonic() < deadline:
            for one in running:
                one.look()
            serves = serves or answers(f"{reached_at(settings)}/readyz", within_s=2)
            if serves and workers_live(redis) >= workers:
                break
    return serves


def workers_live(redis: Redis) -> int:
    """Return how many workers say that they live; none where Redis does not answer."""
    with suppress(QueueError):
        return read_stats(redis).workers
    return 0


def main() -> int:
    """Run the stack in the foreground; return the exit status."""
    stop = Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, end)
    # The terminal was closed: the programs are in sessions of their own and would live on.
    signal.signal(signal.SIGHUP, end)
    signal.signal(signal.SIGTERM, end)
    try:
        run(os.environ, stop)
    except (CannotStart, ConfigError, NoRedis) as error:
        print(f"make dev: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
