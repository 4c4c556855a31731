"""The thread that records this worker's heartbeats in Redis."""

import logging
import secrets
import socket
from collections.abc import Callable
from threading import Event, Thread

from common.errors import MatchError
from common.queue.heartbeats import EVERY_S, Heartbeats

log = logging.getLogger(__name__)

# An unavailable Redis must not delay the end of the process.
CLOSE_WITHIN_S = 1.0


def new_worker_name() -> str:
    """Return a name for this process that no other process has or had."""
    return f"{socket.gethostname()}:{secrets.token_hex(8)}"


class Heartbeat:
    """Records heartbeats in its own thread, so that no long task delays them."""

    def __init__(self, heartbeats: Heartbeats, name: str, *, every_s: float = EVERY_S) -> None:
        self._heartbeats = heartbeats
        self._every_s = every_s
        self._name = name
        self._stop = Event()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop; if Redis answers, this worker no longer counts as alive."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_WITHIN_S)

    def _run(self) -> None:
        while True:
            self._record(self._heartbeats.beat)
            if self._stop.wait(self._every_s):
                break
        self._record(self._heartbeats.end)

    def _record(self, record: Callable[[str], None]) -> None:
        try:
            record(self._name)
        except MatchError as error:
            log.debug("heartbeat failed: %s", error)
        except Exception:
            # Continue: without this thread a working worker would count as dead.
            log.exception("heartbeat failed unexpectedly")
