"""An image host with limits: as CDNs and shops, it refuses more requests a second than it allows."""

from collections import Counter
from threading import Lock
from time import monotonic
from typing import Any

from support.http_servers import Handler, LocalServer
from support.image_server import image

OK = 200
TOO_MANY_REQUESTS = 429
UNAVAILABLE = 503


class LimitedHost(LocalServer):
    """Serves `/<number>` at most `rate` times a second, after a burst of as many; else a 429 with Retry-After: 1.

    While `is_down`, it answers 503 without Retry-After. `answers` counts the statuses.
    """

    def __init__(self, rate: float) -> None:
        super().__init__(_Images)
        self.rate = rate
        self.is_down = False
        self.answers: Counter[int] = Counter()
        self._tokens = rate
        self._refilled = monotonic()
        self._lock = Lock()

    def answer(self) -> int:
        """Return the status of the next answer."""
        with self._lock:
            now = monotonic()
            self._tokens = min(self.rate, self._tokens + (now - self._refilled) * self.rate)
            self._refilled = now
            status = UNAVAILABLE if self.is_down else OK if self._tokens >= 1 else TOO_MANY_REQUESTS
            self._tokens -= status == OK
            self.answers[status] += 1
            return status


class _Images(Handler):
    protocol_version = "HTTP/1.1"
    server: Any

    def answer(self) -> None:
        status = self.server.answer()
        if status != OK:
            headers = {"Retry-After": "1"} if status == TOO_MANY_REQUESTS else {}
            self.reply(status, b"", headers)
        else:
            self.reply(status, image(int(self.path.removeprefix("/"))))
