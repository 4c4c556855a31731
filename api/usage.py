"""The use of each request, added to the counts in Redis when the request ends."""

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from time import monotonic

from flask import g

from common.errors import QueueError
from common.queue.items import AddItem
from common.queue.usage import MAX_LABELS, OTHER, Counted, Label, UsageCounts

log = logging.getLogger(__name__)

# While Redis does not answer, requests end without a call to it for this time.
AWAY_S = 1.0

Counts = Mapping[tuple[Label, Counted], int]


def count(counted: Counted, number: int, *, collection: str) -> None:
    """Add to the use of the current request."""
    g.setdefault("use", Counter())[collection, counted] += number


def count_adds(items: Iterable[AddItem]) -> None:
    """Count the items that the current request enqueued; those of an earlier request with the same key count as 0."""
    for item in items:
        if item.error is None:
            count(Counted.ADDS, 0 if item.is_replay else 1, collection=item.collection)


class UsageRecorder:
    """Adds counts to those in Redis. While Redis does not answer, they wait in memory, and are lost with the process.

    Each call to Redis has a number, so that a call whose reply was lost is repeated without counting twice.
    """

    def __init__(self, counts: UsageCounts, *, clock: Callable[[], float] = monotonic) -> None:
        self._counts = counts
        self._clock = clock
        self._writer = secrets.token_hex(8)
        self._number = 0
        # Of the call that is not confirmed yet.
        self._sent: Counts = {}
        self._pending: Counter[tuple[Label, Counted]] = Counter()
        self._changing = Lock()
        self._sending = Lock()
        self._away_until = 0.0

    def add(self, counts: Counts) -> None:
        """Add the counts of a request."""
        with self._changing:
            for (label, counted), number in counts.items():
                is_bounded = len(self._pending) < MAX_LABELS or (label, counted) in self._pending
                self._pending[label if is_bounded else Label(OTHER, OTHER), counted] += number
        self.flush()

    def flush(self) -> None:
        """Send all counts, unless another thread sends: it sends these too."""
        while (self._pending or self._sent) and self._clock() >= self._away_until:
            if not self._sending.acquire(blocking=False):
                return
            try:
                self._send()
            finally:
                self._sending.release()

    def _send(self) -> None:
        if not self._sent:
            with self._changing:
                self._sent, self._pending = self._pending, Counter()
            self._number += 1
        if not self._sent:
            return
        try:
            self._counts.add(self._sent, writer=self._writer, number=self._number)
        except QueueError as error:
            log.warning("the use of requests is not counted yet: %s", error)
            self._away_until = self._clock() + AWAY_S
        else:
            self._sent = {}
