"""The whole service on this machine: Redis, API, workers and flower, kept running until Ctrl-C.

`python -m dev.stack` is what `make dev` runs. Everything listens on loopback, save that MATCH_API_HOST opens the API to
others; everything written is in MATCH_HOME.
"""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from time import monotonic
from types import FrameType
from urllib.request import urlopen

from redis import Redis

from api.keys import Keyring
from common.config import Settings
from common.errors import ConfigError, QueueError
from common.figures import read
from common.redis_client import connect
from common.sentinels import SCHEME
from common.startup import WRONG_SETTING
from dev.redis_server import NoRedis, RedisServer

LOOPBACK = "127.0.0.1"
PORT = 8888
FLOWER_PORT = 5555
# Below, ports are the system's.
LOW_PORT = 1024
TOP_PORT = 65_535
LOOK_EVERY_S = 0.2
# A program that ends by itself is started again, but not in a busy loop.
RESTART_PAUSE_S = 1.0
# Above the workers' own grace: they finish what they hold.
STOP_WITHIN_S = 60.0
READY_WITHIN_S = 30.0
ROOT = Path(__file__).resolve().parent.parent


class CannotStart(Exception):
    """The stack cannot start here; the text says in one line what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the stack: its name in messages and in its log's file name, and its command line."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


class Running:
    """One program, started again whenever it ends by itself, unless its first start shows a wrong setting."""

    def __init__(self, program: Program, logs: Path) -> None:
        self.program = program
        self._log = logs / f"{program.name}.log"
        self._process = self._start()
        self._starts = 1
        self._ended: float | None = None

    @property
    def pid(self) -> int:
        """The process that runs now, or ran last."""
        return self._process.pid

    def look(self) -> None:
        """Start the program again when it has ended and its pause is over.

        Raises CannotStart where its first start ended over a wrong setting: the next would fare no better.
        """
        if self._process.poll() is None:
            return
        if self._process.returncode == WRONG_SETTING and self._starts == 1:
            raise CannotStart(last_line(self._log) or f"{self.program.name} has a wrong setting")
        if self._ended is None:
            self._ended = monotonic()
            say(f"{self.program.name} ended with status {self._process.returncode}, see {self._log}")
        elif monotonic() - self._ended >= RESTART_PAUSE_S:
            self._ended = None
            self._process = self._start()
            self._starts += 1

    def ask_to_stop(self) -> None:
        """Ask the program to finish what it holds and end."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self, *, within_s: float) -> None:
        """Return when the program has ended, killed if it takes longer than `within_s`."""
        try:
            self._process.wait(max(0.1, within_s))
        except subprocess.TimeoutExpired:
            say(f"{self.program.name} did not stop in time and is killed")
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C reaches this program alone, which stops the others in order.
            return subprocess.Popen(
                self.program.command,
                cwd=ROOT,
                env={**os.environ, **self.program.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def last_line(log: Path) -> str:
    """Return what a program said last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def say(line: str) -> None:
    """Tell the person at the terminal, if somebody is still there."""
    with suppress(OSError):
        print(line, flush=True)


def programs(settings: Settings, *, workers: int) -> list[Program]:
    """Return what does the work beside Redis: the API and the workers."""
    environment = shared(settings)
    python = sys.executable
    crew = [
        Program(f"worker-{number}", [python, "-m", "workers", "-n", f"worker-{number}@%h"], environment)
        for number in range(1, workers + 1)
    ]
    return [Program("api", [python, "-m", "api"], environment), *crew]


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
    environment = shared(settings) | {"CELERY_BROKER_URL": settings.redis_url}
    return Program("flower", [sys.executable, "-m", "celery", "flower", *flags], environment)


def has_flower(settings: Settings) -> bool:
    """Say whether flower can look at this Redis: it cannot be told which service its Sentinels watch."""
    return not settings.redis_url.startswith(f"{SCHEME}://")


def local_settings(environ: Mapping[str, str], redis_url: str | None) -> Settings:
    """Return the settings with what `make dev` chooses where the environment does not: store, Redis, processes."""
    settings = Settings.from_env(environ)
    if redis_url is not None:
        settings = replace(settings, redis_url=redis_url)
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
        free = next(
            near
            for near in (*range(port + 1, TOP_PORT + 1), *range(port - 1, LOW_PORT, -1))
            if near != also_taken and is_free(host, near)
        )
        raise CannotStart(f"port {port} is taken: choose another, for instance {setting}={free} make dev") from error


def is_free(host: str, port: int) -> bool:
    """Say whether a program could listen there."""
    try:
        listen(host, port)
    except OSError:
        return False
    return True


def listen(host: str, port: int) -> None:
    """Take the port for a moment; raises OSError where that cannot be done."""
    family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


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


def stop_all(running: Sequence[Running]) -> None:
    """Stop every program; what they hold is finished or goes back into the queue."""
    deadline = monotonic() + STOP_WITHIN_S
    for one in running:
        one.ask_to_stop()
    for one in running:
        one.stop(within_s=deadline - monotonic())


def run(environ: Mapping[str, str], stop: Event) -> None:
    """Run the stack until `stop` is set."""
    settings = local_settings(environ, None)
    flower_port = read_port(environ, "FLOWER_PORT", FLOWER_PORT)
    if settings.api_keys_file is not None:
        # The API would end over keys that it cannot read: told here, it is told before anything runs.
        Keyring(settings.api_keys_file)
    with only_one(settings.home) as logs:
        check_port(settings.listens_on, settings.port, "PORT", also_taken=flower_port)
        check_port(LOOPBACK, flower_port, "FLOWER_PORT", also_taken=settings.port)
        with redis_for(environ, settings.home) as redis:
            settings = local_settings(environ, redis.url if redis else None)
            running: list[Running] = []
            try:
                running.extend(Running(program, logs) for program in programs(settings, workers=os.cpu_count() or 1))
                greet(settings, flower_port, logs)
                ready = wait_until_ready(settings, running, stop)
                if not stop.is_set():
                    if has_flower(settings):
                        # It asks the workers when it starts: those that are starting too would not answer.
                        running.append(Running(flower(settings, flower_port), logs))
                    say("ready" if ready else "not ready yet: the logs tell what is missing")
                watch(running, redis, stop)
            finally:
                say("stopping …")
                stop_all(running)


def reached_at(settings: Settings) -> str:
    """Return the API's address as this machine reaches it."""
    on_this_machine = {"0.0.0.0": LOOPBACK, "[::]": "[::1]"}  # noqa: S104 - told apart, not listened on
    return f"http://{on_this_machine.get(settings.listens_on, settings.listens_on)}:{settings.port}"


def demo_command(settings: Settings) -> str:
    """Return what is typed in another terminal to try this stack."""
    address = reached_at(settings)
    host = "" if f"//{LOOPBACK}:" in address else f"MATCH_API_HOST={settings.listens_on.strip('[]')} "
    port = "" if settings.port == PORT else f"PORT={settings.port} "
    key = "" if settings.api_keys_file is None else "KEY=… "
    return f"{host}{port}{key}make demo"


def greet(settings: Settings, flower_port: int, logs: Path) -> None:
    """Say where everything is."""
    say(f"API     {reached_at(settings)}")
    if settings.listens_on != LOOPBACK:
        say(f"        listens on {settings.listens_on}, {openness(settings)}")
    if has_flower(settings):
        say(f"flower  http://{LOOPBACK}:{flower_port}")
    say(f"Redis   {settings.redis_url.rpartition('@')[2].partition('?')[0].removeprefix('redis://')}")
    say(f"store   {settings.store_url or settings.elasticsearch_url.rpartition('@')[2]}")
    say(f"data    {settings.home.resolve()}   logs: {logs}")
    say(f"Ctrl-C stops all of it. Try it from another terminal: {demo_command(settings)}")


def openness(settings: Settings) -> str:
    """Return who may use an API that others may reach."""
    if settings.api_keys_file is not None:
        return "for those who have a key"
    return "and whoever reaches it may add, search and delete: MATCH_API_KEYS_FILE is not set"


def wait_until_ready(settings: Settings, running: Sequence[Running], stop: Event) -> bool:
    """Return whether searches are served, within the time that a start takes, or when `stop` is set.

    Where they are, it waits for the workers as well.
    """
    redis = connect(settings.redis_url)
    deadline = monotonic() + READY_WITHIN_S
    serves = False
    while not stop.wait(LOOK_EVERY_S) and monotonic() < deadline:
        for one in running:
            one.look()
        serves = serves or is_ready(settings)
        if serves and workers_live(redis) >= len(running) - 1:
            break
    redis.close()
    return serves


def is_ready(settings: Settings) -> bool:
    """Ask the API whether searches are served."""
    with suppress(OSError), urlopen(f"{reached_at(settings)}/readyz", timeout=2):  # noqa: S310 - an http URL
        return True
    return False


def workers_live(redis: Redis) -> int:
    """Return how many workers say that they live; none where Redis does not answer."""
    with suppress(QueueError):
        return read(redis).workers
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
