"""The worker's heartbeat, every few seconds, also while Redis is unavailable."""

import logging
import secrets
import socket
from collections.abc import Callable
from threading import Event, Thread

from common.errors import MatchError
from common.queue.heartbeats import EVERY_S, Heartbeats

log = logging.getLogger(__name__)

# A Redis that does not answer must not delay the end of the process.
CLOSE_WITHIN_S = 1.0


class Heartbeat:
    """A thread of its own, so that neither a long download nor a full queue delays it."""

    def __init__(self, heartbeats: Heartbeats, *, every_s: float = EVERY_S) -> None:
        self._heartbeats = heartbeats
        self._every_s = every_s
        self._name = f"{socket.gethostname()}:{secrets.token_hex(8)}"
        self._stop = Event()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; where Redis answers, this worker counts as stopped at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_WITHIN_S)

    def _run(self) -> None:
        while True:
            self._send(self._heartbeats.beat)
            if self._stop.wait(self._every_s):
                break
        self._send(self._heartbeats.end)

    def _send(self, send: Callable[[str], None]) -> None:
        try:
            send(self._name)
        except MatchError as error:
            log.debug("cannot send a heartbeat: %s", error)
        except Exception:
            # Without this thread a running worker would count as dead.
            log.exception("unexpected error in a heartbeat")
