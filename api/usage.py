"""The use of each request, added to the counts in Redis shortly after the request ends."""

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from threading import Lock, Timer

from flask import g

from common.errors import QueueError
from common.queue.items import AddItem
from common.queue.usage import MAX_LABELS, OTHER, Counted, Label, Usage, UsageCounts

log = logging.getLogger(__name__)

# The use of all requests within this time is sent together: a call for each takes a tenth of the CPU of an add.
SEND_AFTER_S = 0.5

Counts = Mapping[tuple[Label, Counted], int]


def count(counted: Counted, number: int, *, collection: str) -> None:
    """Add to the use of the current request."""
    g.setdefault("use", Counter())[collection, counted] += number


def count_adds(items: Iterable[AddItem]) -> None:
    """Count the items that the current request enqueued; those of an earlier request with the same key count as 0."""
    for item in items:
        if item.error is None:
            count(Counted.ADDS, 0 if item.is_replay else 1, collection=item.collection)


def start_timer(seconds: float, call: Callable[[], None]) -> None:
    """Make the call in a thread after this time, unless the process ends before."""
    timer = Timer(seconds, call)
    timer.daemon = True
    timer.start()


class UsageRecorder:
    """Adds counts to those in Redis, within SEND_AFTER_S, while `after` starts a timer.

    While Redis does not answer, they wait in memory, and are lost with the process. Each call to Redis has a number, so
    that a call whose reply was lost is repeated without counting twice.
    """

    def __init__(
        self, counts: UsageCounts, *, after: Callable[[float, Callable[[], None]], None] = start_timer
    ) -> None:
        self._counts = counts
        self._after = after
        self._writer = secrets.token_hex(8)
        self._number = 0
        # Of the call that is not confirmed yet.
        self._sent: Counts = {}
        self._pending: Counter[tuple[Label, Counted]] = Counter()
        self._is_due = False
        self._changing = Lock()
        self._sending = Lock()

    def add(self, counts: Counts) -> None:
        """Add the counts of a request."""
        with self._changing:
            for (label, counted), number in counts.items():
                is_bounded = len(self._pending) < MAX_LABELS or (label, counted) in self._pending
                self._pending[label if is_bounded else Label(OTHER, OTHER), counted] += number
        self._send_later()

    def flush(self) -> None:
        """Send all counts now."""
        with self._sending:
            while self._pending or self._sent:
                if not self._send():
                    return

    def read(self, *, days: int) -> Usage:
        """Return the use of the last days, with all requests that this process has answered."""
        self.flush()
        return self._counts.read(days=days)

    def _send_later(self) -> None:
        with self._changing:
            if not self._is_due:
                # It may fail to start a thread; the next request then tries again.
                self._after(SEND_AFTER_S, self._send_due)
                self._is_due = True

    def _send_due(self) -> None:
        with self._changing:
            self._is_due = False
        self.flush()
        if self._pending or self._sent:
            self._send_later()

    def _send(self) -> bool:
        """Send what is pending; return whether Redis confirmed it."""
        if not self._sent:
            with self._changing:
                self._sent, self._pending = self._pending, Counter()
            self._number += 1
        try:
            self._counts.add(self._sent, writer=self._writer, number=self._number)
        except QueueError as error:
            log.warning("the use of requests is not counted yet: %s", error)
            return False
        self._sent = {}
        return True
