"""A worker's own /metrics: a small HTTP server beside its work, which nothing that is sent to it disturbs."""

import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

log = logging.getLogger(__name__)

# Scrapers are few; whoever else connects holds no more threads than these, and none for longer than it sends.
MOST_AT_ONCE = 8
SILENCE_S = 5.0


class MetricsServer:
    """Serves `text` at `/metrics` on every address of this machine, to whoever asks.

    Raises OSError when the port is taken. It ends with its process, whatever it does at the time.
    """

    def __init__(self, port: int, text: Callable[[], bytes]) -> None:
        self._server = _Server(("", port), _handler(text))
        Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - passed on as they are
        self._free = BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(*args)

    def server_bind(self) -> None:
        """Bind without asking for the host's name: that may wait for a name server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver has it
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver has it
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver has it
        del request, client_address
        log.debug("a scrape broke: %s", sys.exc_info()[1])


def _handler(text: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SILENCE_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            body = text()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def version_string(self) -> str:
            return "match"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as http.server has it
            log.debug(format, *args)

    return Handler


def serve(port: int, text: Callable[[], bytes]) -> MetricsServer | None:
    """Serve the metrics; where the port is 0, or cannot be had, the worker works without."""
    if not port:
        return None
    try:
        return MetricsServer(port, text)
    except OSError as error:
        log.error("no /metrics on port %d: %s", port, error.strerror)  # noqa: TRY400 - that is all there is to say
        return None
