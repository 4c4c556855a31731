"""Wait for tasks to end: one listener thread for all requests of a process."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from threading import Event, Lock, Thread
from time import monotonic, time

from redis import Redis
from redis.client import PubSub
from redis.exceptions import TimeoutError  # noqa: A004 - the client's own name

from common.errors import MatchError
from common.queue.keys import CLOSED_CHANNEL
from common.queue.ledger import Ledger
from common.queue.tasks import CLOSED_STATES, Task
from common.redis.client import ANSWER_WITHIN_S, redis_errors

log = logging.getLogger(__name__)

# A notification can be lost with its connection, so the ledger is polled as well.
POLL_EVERY_S = 5.0
LISTEN_S = 1.0
# After so long without a notification the connection may be dead.
QUIET_S = 5.0
PAUSE_S = 0.5


class TaskWaiter:
    """Lets requests wait for tasks; the ledger's notifications end their waits."""

    def __init__(self, redis: Redis, ledger: Ledger) -> None:
        self._redis = redis
        self._ledger = ledger
        self._events: defaultdict[str, list[Event]] = defaultdict(list)
        self._lock = Lock()
        self._listening = Event()
        self._closed = Event()
        self._thread: Thread | None = None

    def wait_each(self, tasks: Iterable[Task], *, timeout_s: float) -> Iterator[Task]:
        """Yield the tasks, in order, each when it has ended; `timeout_s` limits the time of all of them together.

        Raises QueueUnavailable when Redis does not answer.
        """
        deadline = monotonic() + timeout_s
        for task in tasks:
            yield self.wait(task.id, timeout_s=max(0.0, deadline - monotonic())) or task

    def wait(self, task_id: str, *, timeout_s: float) -> Task | None:
        """Return the task when it has ended or the time is over; None when it is unknown.

        The time is over for a task whose next try is later.

        Raises QueueUnavailable when Redis does not answer.
        """
        deadline = monotonic() + timeout_s
        ended = self._register(task_id)
        try:
            while True:
                # Before the read, so that no later notification is lost.
                ended.clear()
                task = self._ledger.task(task_id)
                left = deadline - monotonic()
                if task is None or task.state in CLOSED_STATES or left <= 0 or _is_later(task, left):
                    return task
                ended.wait(min(left, POLL_EVERY_S))
        finally:
            self._forget(task_id, ended)

    def close(self) -> None:
        """End the listener thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _register(self, task_id: str) -> Event:
        ended = Event()
        with self._lock:
            self._events[task_id].append(ended)
            if self._thread is None:
                # Started at the first wait: a thread that starts earlier does not survive gunicorn's fork.
                self._thread = Thread(target=self._listen, name="waiting", daemon=True)
                self._thread.start()
        # Redis delivers only what is published after the subscription is confirmed.
        self._listening.wait(LISTEN_S)
        return ended

    def _forget(self, task_id: str, ended: Event) -> None:
        with self._lock:
            self._events[task_id].remove(ended)
            if not self._events[task_id]:
                del self._events[task_id]

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                with redis_errors(), self._redis.pubsub() as channel:  # type: ignore[no-untyped-call]  # its stub has no types
                    channel.subscribe(CLOSED_CHANNEL)
                    self._receive(channel)
            except MatchError as error:
                log.warning("no notifications of ended tasks, waiting requests poll the ledger: %s", error)
                self._closed.wait(PAUSE_S)
            except Exception:
                # Without this thread every wait takes up to POLL_EVERY_S longer.
                log.exception("the listener for ended tasks failed and starts again")
                self._closed.wait(PAUSE_S)
            finally:
                self._listening.clear()

    def _receive(self, channel: PubSub) -> None:
        received = monotonic()
        while not self._closed.is_set():
            message = channel.get_message(timeout=LISTEN_S)
            if message is None:
                self._check_connection(channel, monotonic() - received)
                continue
            received = monotonic()
            self._listening.set()
            if message["type"] == "message":
                self._notify(message["data"].decode())

    @staticmethod
    def _check_connection(channel: PubSub, silent_s: float) -> None:
        """Ping a silent connection, and raise TimeoutError when the ping is not answered: a dead peer sends nothing."""
        if silent_s > QUIET_S + ANSWER_WITHIN_S:
            raise TimeoutError("the channel is silent")
        if silent_s > QUIET_S:
            channel.ping()

    def _notify(self, task_id: str) -> None:
        with self._lock:
            for ended in self._events.get(task_id, ()):
                ended.set()


def _is_later(task: Task, left_s: float) -> bool:
    """Return whether the task's next try is after the time that is left."""
    return task.next_try is not None and task.next_try / 1000 > time() + left_s
