"""The order in which a worker consumes its queues."""

from collections.abc import Callable, Sequence

from common.queue.jobs import BATCH_QUEUE


class QueueOrder:
    """The queues in the order in which they are named, without that of batches while the process holds enough of them.

    A message of a single task takes a thread of the pool, so the pool's size limits how many a process takes. A message
    of a batch would exceed that limit many times over, and leave nothing to workers that start later. This is one of
    kombu's queue order strategies (`kombu.utils.scheduling`).
    """

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full
        self._names: list[str] = []

    def update(self, names: Sequence[str]) -> None:
        """Set the names of the queues, in order."""
        self._names = list(names)

    def consume(self, n: int) -> list[str]:
        """Return at most `n` names of queues to take the next message from."""
        names = self._names[:n]
        return [name for name in names if name != BATCH_QUEUE] if self._is_full() else names

    def rotate(self, last_used: str) -> str:
        """Keep the order, whichever queue a message was taken from."""
        return last_used


class QueueOrderStrategy:
    """Makes the queue order of each of a worker's connections; it is one of the transport's options.

    A worker reports its options to flower and to `celery inspect`: there it is its name.
    """

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full

    def __call__(self) -> QueueOrder:
        """Return the queue order of one more connection."""
        return QueueOrder(self._is_full)

    def __json__(self) -> str:
        """Return what kombu writes in its place."""
        return QueueOrder.__name__
