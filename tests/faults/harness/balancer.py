"""Passes connections to the pods of a Service as kube-proxy does: it knows connections, not requests."""

import socket
from contextlib import suppress
from threading import Lock, Thread
from typing import Self

CHUNK_BYTES = 64 * 1024


class Balancer:
    """Passes each new connection to the next of `ports`, for as long as the `with` lasts.

    A connection stays where it is until one of its ends closes it, whatever becomes of the list. One that cannot be
    made is closed: nobody tries another pod for it.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ports: list[int] = []
        self._lock = Lock()

    def add(self, port: int) -> None:
        """Pass connections to this port as well."""
        with self._lock:
            self._ports.append(port)

    def remove(self, port: int) -> None:
        """Pass no new connection to this port."""
        with self._lock:
            self._ports.remove(port)

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._connect, args=(client, self._next()), daemon=True).start()

    def _next(self) -> int:
        with self._lock:
            port = self._ports.pop(0)
            self._ports.append(port)
            return port

    @staticmethod
    def _connect(client: socket.socket, port: int) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
            back = Thread(target=_pass, args=(server, client), daemon=True)
            back.start()
            _pass(client, server)
            back.join()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until it ends, and then the end."""
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
