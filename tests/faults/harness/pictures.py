"""Pictures that are unlike each other, and a web server that has them."""

import io
import random
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self

from PIL import Image

from common.images import decode
from common.signature import Signature, sign


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


class PictureServer:
    """Serves `/<number>` for as long as the `with` lasts, with the bytes of `/<number>+<hex>` behind it; else a 404."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Pictures(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        number, _, ending = self.path.removeprefix("/").partition("+")
        body = picture(int(number)) + bytes.fromhex(ending) if number.isdecimal() else BAD.get(number, b"")
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
