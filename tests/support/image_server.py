"""Images without near-duplicates, and a web server for them."""

from functools import cache
from time import sleep

from common.images.decode import decode
from common.images.signature import Signature, sign
from support.http_servers import Handler, LocalServer
from support.images import noise


@cache
def image(number: int) -> bytes:
    """Return a small JPEG; different numbers give no near-duplicates."""
    return noise(number, kind="JPEG")


@cache
def signature(number: int) -> Signature:
    """Return the signature of the image with this number."""
    return sign(decode(image(number)).pixels)


# Bodies by path: they can be fetched but not decoded.
BAD = {"page": b"<html></html>", "half": image(0)[: len(image(0)) // 2]}

# The latency of a remote server.
LATE_S = 0.05


class ImageServer(LocalServer):
    """Serves `/<number>`, and `/<number>+<hex>` with these bytes appended; else a 404.

    `?late` delays the reply by LATE_S, and `?late=2` by two seconds.
    """

    def __init__(self) -> None:
        super().__init__(_Images)


class _Images(Handler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        if query.startswith("late"):
            sleep(float(query.partition("=")[2] or LATE_S))
        number, _, ending = path.removeprefix("/").partition("+")
        body = image(int(number)) + bytes.fromhex(ending) if number.isdecimal() else BAD.get(number, b"")
        self.reply(200 if body else 404, body)
