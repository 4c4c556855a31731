"""Pictures that are unlike each other, and a web server that has them."""

import io
import random
import sys
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from typing import Any, Self

from PIL import Image

from common.images.decode import decode
from common.images.signature import Signature, sign


@cache
def picture(number: int) -> bytes:
    """Return a small JPEG that is no near-duplicate of those of other numbers."""
    noise = random.Random(number).randbytes(12 * 12 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (12, 12), noise).resize((120, 120), Image.Resampling.BILINEAR).save(out, "JPEG")
    return out.getvalue()


@cache
def signature(number: int) -> Signature:
    """Return the signature of the picture of that number."""
    return sign(decode(picture(number)).pixels)


# What else the server has: it can be fetched, and is no picture.
BAD = {"page": b"<html></html>", "half": picture(0)[: len(picture(0)) // 2]}

# As far as many servers are away.
LATE_S = 0.05


class PictureServer:
    """Serves `/<number>` for as long as the `with` lasts, with the bytes of `/<number>+<hex>` behind it; else a 404.

    What is asked for with `?late` is answered LATE_S later.
    """

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Pictures)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # Those who fetch are killed again and again: no news.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Pictures(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, how = self.path.partition("?")
        if how == "late":
            sleep(LATE_S)
        number, _, ending = path.removeprefix("/").partition("+")
        body = picture(int(number)) + bytes.fromhex(ending) if number.isdecimal() else BAD.get(number, b"")
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
