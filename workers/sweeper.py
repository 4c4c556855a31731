"""Sends again what was accepted and is still open although its message must be gone."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event, Thread
from typing import cast

from redis import Redis

from common.errors import MatchError
from common.jobs import QUEUES, SENT_HEADER
from common.ledger import Ledger, Sent
from common.redis_client import redis_errors
from common.store.base import Store

log = logging.getLogger(__name__)

# A message of a dead worker comes back after one visibility time-out by itself; what is silent for two is lost.
LOST_AFTER = 2
# Passes in one visibility time-out.
PASSES = 10
PAGE = 500
# Bounds one pass: the next goes on where this one's restamped tasks no longer stand.
MOST_PAGES = 20
# Messages looked at, oldest first, for one that tells when it was sent.
MOST_PEEKS = 10

PURGE_EVERY_S = 600.0
PURGE_AT_ONCE = 1000


def lost(open_tasks: Iterable[Sent], waiting_since: Mapping[str, int | None]) -> list[Sent]:
    """Return the tasks whose message is not in its queue.

    `waiting_since` tells when the oldest message of each queue was sent (ms), None where the queue is empty. A queue
    is worked in order, so a task sent before its oldest message is not among its messages: a long backlog is no loss.
    """
    return [task for task in open_tasks if (since := waiting_since.get(task.queue)) is None or task.at < since]


class Sweeper:
    """One pass every tenth of a visibility time-out by one of all workers, whoever is first."""

    def __init__(  # noqa: PLR0913 - the options are named at every call
        self,
        redis: Redis,
        ledger: Ledger,
        store: Store,
        send: Callable[[Sequence[str], str, int], None],
        *,
        visibility_timeout_s: float,
        tombstone_keep_s: int,
    ) -> None:
        self._redis = redis
        self._ledger = ledger
        self._store = store
        self._send = send
        self._every_s = visibility_timeout_s / PASSES
        self._lost_after_ms = int(LOST_AFTER * visibility_timeout_s * 1000)
        self._tombstone_keep_ms = tombstone_keep_s * 1000
        self._stop = Event()
        self._thread = Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin to sweep, now and then."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> int:
        """Send again what is lost, and return how many."""
        now = self._ledger.now_ms()
        waiting_since = {queue: self._oldest(queue) for queue in QUEUES}
        sent = 0
        for page in range(MOST_PAGES):
            old = self._ledger.sent_before(now - self._lost_after_ms, offset=page * PAGE, limit=PAGE)
            found = lost(old, waiting_since)
            self._send_again(found, now)
            sent += len(found)
            if len(old) < PAGE or found:
                break
        return sent

    def _send_again(self, tasks: Sequence[Sent], now: int) -> None:
        for task in tasks:
            # Stamped first: dying in between delays this task, the other way round would send it twice.
            self._ledger.mark_sent([task.task_id], at=now)
            self._send([task.task_id], task.queue, now)

    def _oldest(self, queue: str) -> int | None:
        """Return when the oldest message of the queue was sent (ms); None when the queue is empty."""
        with redis_errors():
            messages = cast("list[bytes]", self._redis.lrange(queue, -MOST_PEEKS, -1))
        stamps = [stamp for message in messages if (stamp := _sent_at(message)) is not None]
        return min(stamps) if stamps else (0 if messages else None)

    def _purge(self) -> None:
        before = self._ledger.now_ms() - self._tombstone_keep_ms
        self._ledger.forget_failed_before(before)
        self._store.purge(before=before, limit=PURGE_AT_ONCE)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                if self._ledger.lease("sweep", for_s=0.9 * self._every_s) and (count := self.sweep()):
                    log.warning("sent %d lost tasks again", count)
                if self._ledger.lease("purge", for_s=PURGE_EVERY_S):
                    self._purge()
            except MatchError as error:
                log.warning("the sweep waits for its next turn: %s", error)
            except Exception:
                # Without this thread what is lost stays lost: whatever broke one pass, the next begins anew.
                log.exception("a sweep broke")


def _sent_at(message: bytes) -> int | None:
    """Return the stamp of a queued message, None where it has none or is not one of ours."""
    try:
        return int(json.loads(message)["headers"][SENT_HEADER])
    except (ValueError, TypeError, LookupError):
        return None
