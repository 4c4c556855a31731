"""A Redis with a replica, and a Sentinel that puts the one in place of the other."""

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from urllib.parse import quote

from redis import Redis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError  # noqa: A004 - the client's own name

from dev.ports import free_port
from dev.redis_server import RedisServer, find_program
from harness.waiting import wait_until

SERVICE = "match"
PASSWORD = "p@ss/of-redis"  # noqa: S105 - of a server that lives for a minute
SENTINEL_PASSWORD = "pass-of-sentinels"  # noqa: S105 - the same
# In whatever form they could get into a log.
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), SENTINEL_PASSWORD)


class WatchedRedis:
    """A primary, a replica and one Sentinel, for as long as the `with` lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._exit = ExitStack()
        self.primary = RedisServer(folder / "primary")
        self.replica = RedisServer(folder / "replica")

    @property
    def url(self) -> str:
        """The address by way of the Sentinel."""
        login = f":{quote(PASSWORD, safe='')}@"
        return f"sentinel://{login}127.0.0.1:{self._port}/{SERVICE}?sentinel_password={SENTINEL_PASSWORD}"

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self.primary)
            undo.enter_context(self.replica)
            for server in (self.primary, self.replica):
                with Redis(port=server.port) as client:
                    client.config_set("masterauth", PASSWORD)
                    client.config_set("requirepass", PASSWORD)
            with Redis(port=self.replica.port, password=PASSWORD) as replica:
                replica.replicaof("127.0.0.1", self.primary.port)
            self.wait_until_copied()
            undo.enter_context(self._sentinel())
            with Redis(port=self._port, password=SENTINEL_PASSWORD) as sentinel:
                wait_until(lambda: len(sentinel.sentinel_slaves(SERVICE)) == 1, "the Sentinel knows the replica")
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def wait_until_copied(self) -> None:
        """Return when the replica has all that the primary has."""
        with Redis(port=self.primary.port, password=PASSWORD) as primary:
            wait_until(lambda: primary.wait(1, 100) == 1, "the replica has all")

    def _sentinel(self) -> subprocess.Popen[bytes]:
        lines = [
            f"port {self._port}",
            "bind 127.0.0.1",
            f"dir {self._folder}",
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} 1",
            f"sentinel auth-pass {SERVICE} {PASSWORD}",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 4000",
        ]
        settings = self._folder / "sentinel.conf"
        settings.write_text("\n".join(lines))
        process = _Ending(
            [find_program(), str(settings), "--sentinel"], stdout=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(lambda: _answers(self._port), "the Sentinel answers")
        return process


def _answers(port: int) -> bool:
    with Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except (NoConnection, TimeoutError):
            return False


class _Ending(subprocess.Popen[bytes]):
    """A process that ends with its `with`."""

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
