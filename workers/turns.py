"""Which queues a worker takes its next message from."""

from collections.abc import Callable, Sequence

from common.queue.jobs import BATCH_QUEUE


class Turns:
    """The queues in the order in which they are named, without that of messages of many tasks while enough are held.

    Elsewhere a thread of the pool is a picture, so the pool's size bounds what a process takes. A message of many would
    pass that bound many times over, and leave nothing to workers that start later. It is one of kombu's queue order
    strategies (`kombu.utils.scheduling`).
    """

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full
        self._names: list[str] = []

    def update(self, names: Sequence[str]) -> None:
        """Take the queues' names, in order."""
        self._names = list(names)

    def consume(self, n: int) -> list[str]:
        """Return at most `n` names of queues to take the next message from."""
        names = self._names[:n]
        return [name for name in names if name != BATCH_QUEUE] if self._is_full() else names

    def rotate(self, last_used: str) -> str:
        """Keep the order, whichever queue a message came from."""
        return last_used


class TurnsOfAWorker:
    """Makes the turns of each of a worker's connections; it stands among the transport's options.

    They are part of what a worker tells about itself, to flower and to `celery inspect`: there it is its name.
    """

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full

    def __call__(self) -> Turns:
        """Return the turns of one more connection."""
        return Turns(self._is_full)

    def __json__(self) -> str:
        """Return what kombu writes in its place."""
        return Turns.__name__
