"""Slots for decoding: a limit for all clients together, a limit for each client, and a queue for each client."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from common.errors import BUSY_RETRY_AFTER_S, Overloaded


class DecoderSlots:
    """`total` slots, of which one client holds at most `per_client`; up to `queue` more of its requests wait.

    A free slot goes to the client that has waited longest since its last slot, so that many requests of one client
    delay another client by one image. A request waits at most `wait_s`.
    """

    def __init__(self, total: int, *, per_client: int, queue: int, wait_s: float) -> None:
        self._free = total
        self._per_client = per_client
        self._queue = queue
        self._wait_s = wait_s
        self._lock = Lock()
        self._running: Counter[str] = Counter()
        # The clients in the order of their turns, each with its waiting requests.
        self._waiting: dict[str, deque[Event]] = {}

    @contextmanager
    def acquire(self, client: str) -> Iterator[None]:
        """Hold a slot inside the `with`; raises Overloaded if the client gets none in time."""
        self._acquire(client)
        try:
            yield
        finally:
            self._release(client)

    def _acquire(self, client: str) -> None:
        with self._lock:
            if self._free and self._may_hold(client):
                self._take(client)
                return
            if len(self._waiting.get(client, ())) >= self._queue:
                raise Overloaded(
                    "too many images of this client are waiting for a decoder", retry_after=BUSY_RETRY_AFTER_S
                )
            admitted = Event()
            self._waiting.setdefault(client, deque()).append(admitted)
        if admitted.wait(self._wait_s):
            return
        with self._lock:
            # The slot may have been assigned in the last moment.
            if not admitted.is_set():
                self._forget(client, admitted)
                raise Overloaded("no decoder was free in time", retry_after=BUSY_RETRY_AFTER_S)

    def _release(self, client: str) -> None:
        with self._lock:
            self._free += 1
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
            self._admit()

    def _admit(self) -> None:
        """Assign a free slot to the first client that may hold one, whose next turn is then the last."""
        client = next((client for client in self._waiting if self._may_hold(client)), None)
        if client is None:
            return
        waiting = self._waiting.pop(client)
        self._take(client)
        waiting.popleft().set()
        if waiting:
            self._waiting[client] = waiting

    def _may_hold(self, client: str) -> bool:
        return self._running[client] < self._per_client

    def _take(self, client: str) -> None:
        self._free -= 1
        self._running[client] += 1

    def _forget(self, client: str, admitted: Event) -> None:
        waiting = self._waiting[client]
        waiting.remove(admitted)
        if not waiting:
            del self._waiting[client]
