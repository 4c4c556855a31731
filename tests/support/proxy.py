"""A TCP proxy whose network can stall: no byte passes, and no connection is closed."""

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Self

CHUNK_BYTES = 64 * 1024
POLL_S = 0.05

Watch = Callable[[bytes], bool]


class Proxy:
    """A context manager that forwards connections to `port` of the loopback address.

    `stall` holds every byte back, of new connections too, until `resume`. Neither end receives anything, as behind a
    firewall that drops packets. `watch` receives the clients' bytes before they are forwarded; if it returns False,
    they are dropped.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.watch: Watch = lambda _data: True
        self._passing = Event()
        self._passing.set()
        self._closed = Event()
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._forgotten: set[socket.socket] = set()

    def url(self, scheme: str) -> str:
        """Return the URL of the proxy."""
        return f"{scheme}://127.0.0.1:{self.port}"

    def stall(self) -> None:
        """Hold back every byte from now on."""
        self._passing.clear()

    def route_to(self, port: int) -> None:
        """Forward new connections to another port; open connections stay."""
        self._target = port

    def forget(self) -> None:
        """Drop the bytes of all open connections; new ones work, as behind a firewall that has restarted."""
        with self._lock:
            self._forgotten |= set(self._sockets)

    def resume(self) -> None:
        """Forward the held bytes, and all that follow."""
        self._passing.set()

    def cut(self) -> None:
        """Close every open connection."""
        with self._lock:
            closing, self._sockets, self._forgotten = self._sockets, [], set()
        for one in closing:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._wait()
        try:
            if self._closed.is_set():
                raise ConnectionAbortedError
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets += [client, server]
        Thread(target=self._pass, args=(client, server, True), daemon=True).start()
        Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, watched: bool) -> None:  # noqa: FBT001 - of a thread
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._wait()
                if source not in self._forgotten and (not watched or self.watch(data)):
                    sink.sendall(data)
        self._wait()
        for one in () if source in self._forgotten else (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> None:
        while not self._passing.wait(POLL_S) and not self._closed.is_set():
            pass
