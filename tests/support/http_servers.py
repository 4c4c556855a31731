"""HTTP servers on loopback for the duration of a test."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from threading import Thread
from typing import Any, TypeVar

NO_HEADERS: Mapping[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    """A handler with one method, `answer`, for all HTTP methods; subclasses define it."""

    def answer(self) -> None:
        """Answer the request."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Answer a request of any method; `self.command` is its method."""
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names are http.server's

    def reply(self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Send a complete reply; to HEAD without its body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", f"{len(body)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        """Return the request's body."""
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class LocalServer(ThreadingHTTPServer):
    """A server on loopback; port 0 is a free one."""

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, except those of clients that left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"http://{self.address}"


Server = TypeVar("Server", bound=BaseServer)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve requests until the `with` block ends."""
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
