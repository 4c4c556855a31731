"""The thread that records this worker's heartbeats in Redis."""

import logging
import secrets
import socket

from common.queue.heartbeats import EVERY_S, Heartbeats
from workers.repeating import ErrorLog, Repeating

ERRORS = ErrorLog(
    log=logging.getLogger(__name__),
    failed="heartbeat failed: %s",
    unexpected="heartbeat failed unexpectedly",
    level=logging.DEBUG,
)
# An unavailable Redis must not delay the end of the process.
CLOSE_WITHIN_S = 1.0


def new_worker_name() -> str:
    """Return a name for this process that no other process has or had."""
    return f"{socket.gethostname()}:{secrets.token_hex(8)}"


class Heartbeat(Repeating):
    """Records heartbeats in its own thread, so that no long task delays them."""

    def __init__(self, heartbeats: Heartbeats, name: str, *, every_s: float = EVERY_S) -> None:
        super().__init__("heartbeat", ERRORS, every_s=every_s, first_after_s=0.0, close_within_s=CLOSE_WITHIN_S)
        self._heartbeats = heartbeats
        self._name = name

    def _repeat(self) -> None:
        self._heartbeats.beat(self._name)

    def _run(self) -> None:
        super()._run()
        with ERRORS.continuing():
            # If Redis answers, this worker no longer counts as alive.
            self._heartbeats.end(self._name)
