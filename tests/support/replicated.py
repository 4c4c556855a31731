"""A Redis with a replica that is promoted: by a Sentinel, or behind an address that moves."""

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
from support.proxy import Proxy
from support.waiting import wait_until

SERVICE = "match"
PASSWORD = "p@ss/of-redis"  # noqa: S105 - of a server that lives for a minute
SENTINEL_PASSWORD = "pass-of-sentinels"  # noqa: S105 - the same
# In every form in which a log could contain them.
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), SENTINEL_PASSWORD)


class _Replicated:
    """A primary and a replica with a password; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._exit = ExitStack()
        self.primary = RedisServer(folder / "primary")
        self.replica = RedisServer(folder / "replica")

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            for server in (self.primary, self.replica):
                undo.enter_context(server)
                with Redis(port=server.port) as client:
                    client.config_set("repl-diskless-sync-delay", 0)
                    client.config_set("masterauth", PASSWORD)
                    client.config_set("requirepass", PASSWORD)
            with _client(self.replica) as replica:
                replica.replicaof("127.0.0.1", self.primary.port)
            self.wait_for_replication()
            self._start_address(undo)
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def wait_for_replication(self) -> None:
        """Return when the replica has all writes of the primary."""
        with _client(self.primary) as primary:
            wait_until(lambda: primary.wait(1, 100) == 1, "the replica is in sync")

    def _start_address(self, undo: ExitStack) -> None:
        """Start the server to which `url` leads."""
        raise NotImplementedError


class SentinelRedis(_Replicated):
    """With a Sentinel, which promotes the replica when the primary is down for a second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()

    @property
    def url(self) -> str:
        """The URL of the Sentinel."""
        login = f":{quote(PASSWORD, safe='')}@"
        return f"sentinel://{login}127.0.0.1:{self._port}/{SERVICE}?sentinel_password={SENTINEL_PASSWORD}"

    def fail_over(self) -> None:
        """Kill the primary."""
        self.primary.kill()

    def _start_address(self, undo: ExitStack) -> None:
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
        process = subprocess.Popen(
            [find_program(), str(settings), "--sentinel"], stdout=subprocess.DEVNULL, start_new_session=True
        )
        undo.callback(process.wait)
        undo.callback(process.kill)
        wait_until(lambda: _has_a_replica(self._port), "the Sentinel has found the replica")


class MovingRedis(_Replicated):
    """Behind an address of its own, as a managed Redis or a virtual IP is."""

    @property
    def url(self) -> str:
        """The URL of the address that moves."""
        return f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{self._proxy.port}/0"

    def fail_over(self) -> None:
        """Swap primary and replica, and route new connections to the new primary; open connections stay."""
        with _client(self.replica) as replica, _client(self.primary) as primary:
            replica.replicaof("NO", "ONE")
            primary.replicaof("127.0.0.1", self.replica.port)
        self._proxy.route_to(self.replica.port)

    def _start_address(self, undo: ExitStack) -> None:
        self._proxy = undo.enter_context(Proxy(self.primary.port))


def _client(server: RedisServer) -> Redis:
    return Redis(port=server.port, password=PASSWORD)


def _has_a_replica(port: int) -> bool:
    with Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=1) as sentinel:
        try:
            return len(sentinel.sentinel_slaves(SERVICE)) == 1
        except (NoConnection, TimeoutError):
            return False
