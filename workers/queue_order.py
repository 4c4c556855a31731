"""The queue order strategy of a worker."""

from collections.abc import Callable, Sequence

from common.queue.jobs import BATCH_QUEUE


class QueueOrder:
    """The queues in their listed order; without the batch queue while `is_full` returns True.

    Celery's prefetch limit counts messages. A message of a batch has up to CHUNK tasks, so a worker would reserve far
    more tasks than it can run, and leave none to workers that start later. The interface is that of kombu's queue order
    strategies (`kombu.utils.scheduling`).
    """

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full
        self._names: list[str] = []

    def update(self, names: Sequence[str]) -> None:
        """Set the names of the queues, in order."""
        self._names = list(names)

    def consume(self, n: int) -> list[str]:
        """Return at most `n` names of queues, in the order of consumption."""
        names = self._names[:n]
        return [name for name in names if name != BATCH_QUEUE] if self._is_full() else names

    def rotate(self, last_used: str) -> str:
        """Do nothing: the order is fixed."""
        return last_used


class QueueOrderStrategy:
    """The factory of queue orders, one of the transport's options; each connection has its own queue order.

    A worker reports its options as JSON to flower and `celery inspect`.
    """

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full

    def __call__(self) -> QueueOrder:
        """Return a queue order for a new connection."""
        return QueueOrder(self._is_full)

    def __json__(self) -> str:
        """Return the option's value in reports."""
        return QueueOrder.__name__
