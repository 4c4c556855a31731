"""The queue order strategy of a worker."""

from collections.abc import Callable, Sequence

from common.queue.jobs import BATCH_QUEUES


class QueueOrder:
    """The queues of single adds, then the batch queues in turn; without the batch queues while `is_full` returns True.

    While `is_paused` returns True there is no queue. kombu asks again when it polls, at least once a second.

    The front queues of the batch queues precede all batch queues: their tasks hold a slot of their host. After a
    message of a batch queue, that queue is the last one, so that each collection's batches get an equal share.

    Celery's prefetch limit counts messages. A message of a batch has up to CHUNK tasks, so a worker would reserve far
    more tasks than it can run, and leave none to workers that start later. The interface is that of kombu's queue order
    strategies (`kombu.utils.scheduling`).
    """

    def __init__(self, is_full: Callable[[], bool], is_paused: Callable[[], bool]) -> None:
        self._is_full = is_full
        self._is_paused = is_paused
        self._first: list[str] = []
        self._in_turn: list[str] = []

    def update(self, names: Sequence[str]) -> None:
        """Set the names of the queues, in order."""
        self._first = [name for name in names if name not in BATCH_QUEUES]
        self._in_turn = [name for name in names if name in BATCH_QUEUES]

    def consume(self, n: int) -> list[str]:
        """Return at most `n` names of queues, in the order of consumption."""
        if self._is_paused():
            return []
        return (self._first if self._is_full() else self._first + self._in_turn)[:n]

    def rotate(self, last_used: str) -> str:
        """Make the batch queue of the last message the last one."""
        if last_used in self._in_turn:
            self._in_turn.remove(last_used)
            self._in_turn.append(last_used)
        return last_used


class QueueOrderStrategy:
    """The factory of queue orders, one of the transport's options; each connection has its own queue order.

    A worker reports its options as JSON to flower and `celery inspect`.
    """

    def __init__(self, is_full: Callable[[], bool], is_paused: Callable[[], bool]) -> None:
        self._is_full = is_full
        self._is_paused = is_paused

    def __call__(self) -> QueueOrder:
        """Return a queue order for a new connection."""
        return QueueOrder(self._is_full, self._is_paused)

    def __json__(self) -> str:
        """Return the option's value in reports."""
        return QueueOrder.__name__
