"""A web server of distinct images."""

import sys
from functools import cache
from time import sleep
from typing import Any

from common.images.decode import decode
from common.images.signature import Signature, sign
from support.http_servers import Handler, LocalServer
from support.images import noise


@cache
def image(number: int) -> bytes:
    """Return a small JPEG; those of other numbers are not near-duplicates of it."""
    return noise(number, kind="JPEG")


@cache
def signature(number: int) -> Signature:
    """Return the signature of the image of that number."""
    return sign(decode(image(number)).pixels)


# Pages that can be fetched but not decoded.
BAD = {"page": b"<html></html>", "half": image(0)[: len(image(0)) // 2]}

# The latency of a distant server.
LATE_S = 0.05


class ImageServer(LocalServer):
    """Serves `/<number>`, with the bytes of `/<number>+<hex>` behind it; else a 404.

    Requests with `?late` are answered LATE_S later.
    """

    def __init__(self) -> None:
        super().__init__(_Images)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, except those of killed clients."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Images(Handler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        path, _, how = self.path.partition("?")
        if how == "late":
            sleep(LATE_S)
        number, _, ending = path.removeprefix("/").partition("+")
        body = image(int(number)) + bytes.fromhex(ending) if number.isdecimal() else BAD.get(number, b"")
        self.reply(200 if body else 404, body)
