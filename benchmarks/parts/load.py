"""Clients that send the same request over and over, each by a connection of its own, and what they are answered.

Not locust: its clients take a millisecond of CPU a request, as much as the API itself, and both share the machine's
cores here. These write prepared bytes and read as much as a reply has: about a twentieth of that.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from multiprocessing import get_context
from threading import Barrier
from time import monotonic
from typing import BinaryIO

GIVE_UP_S = 10.0
# In place of a status.
TIMED_OUT, BROKEN = 0, -1
CLIENTS_A_PROCESS = 32


@dataclass(frozen=True)
class Load:
    """What came back in so many seconds: status and seconds of each request."""

    seconds: float
    answers: Sequence[tuple[int, float]]
    statuses: Counter[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "statuses", Counter(status for status, _ in self.answers))

    def rate(self, *statuses: int) -> float:
        """Return how many a second were answered so."""
        return sum(self.statuses[status] for status in statuses) / self.seconds

    def share(self, *statuses: int) -> float:
        return sum(self.statuses[status] for status in statuses) / max(1, len(self.answers))

    def ms(self, quantile: float, *statuses: int) -> float:
        """Return the quantile of the times of those answers, in milliseconds; nan where there are none."""
        times = sorted(seconds for status, seconds in self.answers if status in statuses)
        return 1000 * times[min(len(times) - 1, int(quantile * len(times)))] if times else float("nan")


def request(
    method: str, path: str, body: bytes = b"", content_type: str = "application/x-www-form-urlencoded"
) -> bytes:
    """Return the bytes of a request."""
    head = [f"{method} {path} HTTP/1.1", "Host: benchmark"]
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


def load(port: int, sent: Sequence[bytes], *, clients: int, seconds: float) -> Load:
    """Send these requests in turns, from so many clients at once, for so long."""
    if clients <= CLIENTS_A_PROCESS:
        return Load(seconds, _clients(port, sent, seconds, clients))
    shares = [CLIENTS_A_PROCESS] * (clients // CLIENTS_A_PROCESS)
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
        return Load(seconds, list(chain(*pool.map(partial(_clients, port, sent, seconds), shares))))


def _clients(port: int, sent: Sequence[bytes], seconds: float, clients: int) -> list[tuple[int, float]]:
    together = Barrier(clients)
    with ThreadPoolExecutor(clients) as pool:
        found = pool.map(lambda number: _client(port, sent, seconds, number, together), range(clients))
        return list(chain(*found))


def _client(
    port: int, sent: Sequence[bytes], seconds: float, number: int, together: Barrier
) -> list[tuple[int, float]]:
    connection = Connection(port)
    answers = []
    together.wait()
    until = monotonic() + seconds
    turn = number
    while (began := monotonic()) < until:
        answers.append((connection.send(sent[turn % len(sent)]), monotonic() - began))
        turn += 1
    connection.close()
    return answers


class Connection:
    """A client's connection, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._file: BinaryIO | None = None

    def send(self, data: bytes) -> int:
        """Return the status of the reply, TIMED_OUT or BROKEN."""
        fresh = self._socket is None
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), GIVE_UP_S)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._file = self._socket.makefile("rb")
            self._socket.sendall(data)
            return self._reply()
        except TimeoutError:
            self.close()
            return TIMED_OUT
        except (OSError, ValueError):
            self.close()
            # A kept connection may end at any time: only a new one has to answer.
            return BROKEN if fresh else self.send(data)

    def close(self) -> None:
        if self._socket is not None and self._file is not None:
            self._file.close()
            self._socket.close()
        self._socket = self._file = None

    def _reply(self) -> int:
        assert self._file is not None
        start = self._file.readline(65_536).split()
        if len(start) < 2:
            raise ConnectionError
        length, closes = 0, False
        while (header := self._file.readline(65_536)) not in {b"\r\n", b""}:
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
            closes |= name.lower() == b"connection" and value.strip().lower() == b"close"
        if len(self._file.read(length)) < length:
            raise ConnectionError
        if closes:
            self.close()
        return int(start[1])
