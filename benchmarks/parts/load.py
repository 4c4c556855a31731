"""Clients that repeat requests on connections of their own, and the responses.

locust's clients would take a millisecond of CPU per request, as much as the API, and share its cores. These clients
write prepared bytes and parse only status and length of a response: about a twentieth of that.
"""

import os
import socket
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from multiprocessing import get_context
from threading import Barrier
from time import monotonic, sleep
from typing import BinaryIO

TIMEOUT_S = 10.0
# Instead of a status.
TIMED_OUT, BROKEN = 0, -1
CLIENTS_PER_PROCESS = 32
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Load:
    """The responses of a measurement that lasted `seconds`: status and seconds of each request."""

    seconds: float
    responses: Sequence[tuple[int, float]]
    statuses: Counter[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "statuses", Counter(status for status, _ in self.responses))

    def rate(self, *statuses: int) -> float:
        """Return the responses a second with one of the statuses."""
        return sum(self.statuses[status] for status in statuses) / self.seconds

    def share(self, *statuses: int) -> float:
        return sum(self.statuses[status] for status in statuses) / max(1, len(self.responses))

    def ms(self, quantile: float, *statuses: int) -> float:
        """Return the quantile of their response times in milliseconds; nan without responses."""
        times = sorted(seconds for status, seconds in self.responses if status in statuses)
        return 1000 * times[min(len(times) - 1, int(quantile * len(times)))] if times else float("nan")


def request(
    method: str, path: str, body: bytes = b"", content_type: str = "application/x-www-form-urlencoded"
) -> bytes:
    """Return the bytes of a request."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    head += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*head, "", ""]).encode() + body


def upload(path: str, data: bytes, field_name: str = "image", **fields: str) -> bytes:
    """Return the bytes of a multipart form with a file."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    file = f'--x\r\nContent-Disposition: form-data; name="{field_name}"; filename="a.jpg"\r\n\r\n'
    body = "".join([*parts, file]).encode() + data + b"\r\n--x--\r\n"
    return request("POST", path, body, "multipart/form-data; boundary=x")


def load(port: int, mix: Sequence[bytes], *, clients: int, seconds: float, as_users: bool = False) -> Load:
    """Send the requests round-robin from concurrent clients for some seconds.

    With `as_users` each client has an address of its own, and waits after a response with Retry-After. Else all have
    the same address, and none waits.
    """
    some = partial(_clients, port, mix, seconds, as_users)
    if clients <= CLIENTS_PER_PROCESS:
        return Load(seconds, some(clients))
    shares = [CLIENTS_PER_PROCESS] * (clients // CLIENTS_PER_PROCESS)
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
        return Load(seconds, list(chain(*pool.map(some, shares))))


def _clients(
    port: int,
    mix: Sequence[bytes],
    seconds: float,
    as_users: bool,  # noqa: FBT001 - of `partial`
    clients: int,
) -> list[tuple[int, float]]:
    barrier = Barrier(clients)
    # Other processes have other clients.
    network = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250}"
    addresses = [f"{network}.{number + 1}" if as_users else LOOPBACK for number in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        results = pool.map(
            lambda number: _client(Connection(port, addresses[number]), mix, seconds, number, barrier, waits=as_users),
            range(clients),
        )
        return list(chain(*results))


def _client(  # noqa: PLR0913 - of one caller
    connection: "Connection", mix: Sequence[bytes], seconds: float, first: int, barrier: Barrier, *, waits: bool
) -> list[tuple[int, float]]:
    responses = []
    barrier.wait()
    until = monotonic() + seconds
    index = first
    while (started := monotonic()) < until:
        responses.append((connection.send(mix[index % len(mix)]), monotonic() - started))
        index += 1
        if waits and connection.retry_after_s:
            sleep(max(0.0, min(connection.retry_after_s, until - monotonic())))
    connection.close()
    return responses


class Connection:
    """A client's connection from a loopback address, opened at the first request."""

    def __init__(self, port: int, address: str = LOOPBACK) -> None:
        self.retry_after_s = 0.0
        """The seconds of the last response's Retry-After."""
        self._port = port
        self._address = address
        self._socket: socket.socket | None = None
        self._file: BinaryIO | None = None

    def send(self, data: bytes) -> int:
        """Return the status of the response, TIMED_OUT or BROKEN."""
        is_new = self._socket is None
        try:
            if self._socket is None:
                self._socket = socket.create_connection((LOOPBACK, self._port), TIMEOUT_S, (self._address, 0))
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._file = self._socket.makefile("rb")
            self._socket.sendall(data)
            return self._read_status()
        except TimeoutError:
            self.close()
            return TIMED_OUT
        except (OSError, ValueError):
            self.close()
            # The server may close an idle connection at any time: only a new one must get a response.
            return BROKEN if is_new else self.send(data)

    def close(self) -> None:
        if self._socket is not None and self._file is not None:
            self._file.close()
            self._socket.close()
        self._socket = self._file = None

    def _read_status(self) -> int:
        assert self._file is not None
        start = self._file.readline(65_536).split()
        if len(start) < 2:
            raise ConnectionError
        length, is_last, self.retry_after_s = 0, False, 0.0
        while (header := self._file.readline(65_536)) not in {b"\r\n", b""}:
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
            if name.lower() == b"retry-after":
                self.retry_after_s = float(value)
            is_last |= name.lower() == b"connection" and value.strip().lower() == b"close"
        if len(self._file.read(length)) < length:
            raise ConnectionError
        if is_last:
            self.close()
        return int(start[1])
