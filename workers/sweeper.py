"""Sends again what was accepted and is still open although its message must be gone."""

import json
import logging
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, cast

from redis import Redis

from common.errors import MatchError
from common.queue.jobs import QUEUES, SENT_HEADER, front_of
from common.queue.keys import UNACKED, UNACKED_INDEX
from common.queue.leases import Leases
from common.queue.stale_tasks import StaleTasks
from common.queue.tasks import Sent
from common.redis.client import redis_errors
from common.redis.clock import now_ms
from workers.hosts import Hosts
from workers.tidying import Tidying

log = logging.getLogger(__name__)

# Looked at, and stamped, at once.
PAGE = 500
# Bounds one pass where nothing is lost: the next goes on where this one ended.
MOST_PAGES = 20
# Messages looked at, oldest first, for one that tells when it was sent.
MOST_PEEKS = 10

PURGE_EVERY_S = 600.0


def lost(
    open_tasks: Iterable[Sent], waiting_since: Mapping[str, int | None], held: Collection[str] = frozenset()
) -> list[Sent]:
    """Return the tasks whose message is neither in its queue nor `held` by a worker.

    `waiting_since` tells when the oldest message of each queue was sent (ms), None where the queue is empty. A queue
    is worked in order, so a task sent before its oldest message is not among its messages: a long backlog is no loss.
    """
    return [
        task
        for task in open_tasks
        if task.task_id not in held and ((since := waiting_since.get(task.queue)) is None or task.at < since)
    ]


class Sweeper:
    """One pass every `every_s` seconds by one of all workers, whoever is first.

    It looks for the messages of what was sent `lost_after_s` ago and is open. `batch` is the most that one pass sends
    again. Two passes at once send nothing twice.
    """

    def __init__(  # noqa: PLR0913 - the options are named at every call
        self,
        redis: Redis,
        stale: StaleTasks,
        leases: Leases,
        send: Callable[[Sequence[str], str, int], None],
        *,
        hosts: Hosts,
        tidying: Tidying,
        every_s: float,
        lost_after_s: float,
        batch: int,
    ) -> None:
        self._redis = redis
        self._stale = stale
        self._leases = leases
        self._send = send
        self._hosts = hosts
        self._tidying = tidying
        self._every_s = every_s
        self._lost_after_ms = int(lost_after_s * 1000)
        self._batch = batch
        self._offset = 0
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
        while self._stale.reset_future_timestamps(limit=PAGE) == PAGE:
            pass
        now = now_ms(self._redis)
        waiting_since = {queue: self._oldest(queue, now) for queue in QUEUES}
        sent = 0
        for _ in range(MOST_PAGES):
            limit = min(PAGE, self._batch - sent)
            old = self._stale.enqueued_before(now - self._lost_after_ms, offset=self._offset, limit=limit)
            missing = lost(old, waiting_since)
            found = lost(missing, waiting_since, self._held()) if missing else []
            sent += self._send_again(found, now)
            # What was sent again does not stand there any more.
            self._offset = self._offset + len(old) - len(found) if len(old) == limit else 0
            if len(old) < limit or sent >= self._batch:
                break
        return sent

    def _send_again(self, tasks: Sequence[Sent], now: int) -> int:
        # Stamped first: dying in between delays these tasks, the other way round would send them twice.
        ours = self._stale.touch(tasks, at=now)
        for task in ours:
            self._send([task.task_id], task.queue, now)
        return len(ours)

    def _oldest(self, queue: str, now: int) -> int | None:
        """Return when the oldest message of the queue, or of the one before it, was sent (ms); None: both are empty.

        0 where that cannot be told: by another clock than now's, or not at all.
        """
        with redis_errors():
            messages = [
                message
                for name in (queue, front_of(queue))
                for message in cast("list[bytes]", self._redis.lrange(name, -MOST_PEEKS, -1))
            ]
        stamps = [stamp for message in messages if (stamp := _sent_at(message)) is not None]
        if not stamps or min(stamps) > now:
            return 0 if messages else None
        return min(stamps)

    def _held(self) -> set[str]:
        """Return the ids of the tasks whose message a worker has taken; if it died, they come back by themselves.

        A note that the set does not name, left by half an acknowledgement, never would.
        """
        with redis_errors():
            tags = cast("list[bytes]", self._redis.zrange(UNACKED_INDEX, 0, -1))
            notes = cast("list[bytes | None]", self._redis.hmget(UNACKED, tags)) if tags else []
        return {task_id for note in notes if note is not None for task_id in _tasks_of(note)}

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            with _going_on():
                if self._leases.acquire("sweep", for_s=0.9 * self._every_s):
                    self._pass()
            with _going_on():
                if self._leases.acquire("purge", for_s=PURGE_EVERY_S):
                    self._tidying.purge()

    def _pass(self) -> None:
        # First: it needs Redis to take nothing, and may be what all else waits for.
        with _going_on():
            if emptied := self._tidying.make_room():
                log.warning("uploads of %d old failures made room for new work", emptied)
        with _going_on():
            self._hosts.wake()
        if count := self.sweep():
            log.warning("sent %d lost tasks again", count)


@contextmanager
def _going_on() -> Iterator[None]:
    """Let nothing that breaks one step stop the others: without them what is lost stays lost."""
    try:
        yield
    except MatchError as error:
        log.warning("the sweep waits for its next turn: %s", error)
    except Exception:
        log.exception("a sweep broke")


def _sent_at(message: bytes) -> int | None:
    """Return the stamp of a queued message, None where it has none or is not one of ours."""
    try:
        return int(json.loads(message)["headers"][SENT_HEADER])
    except (ValueError, TypeError, LookupError):
        return None


def _tasks_of(note: bytes) -> list[str]:
    """Return the tasks of a message that a worker has taken; none where it is not one of ours."""
    try:
        # [message, exchange, routing key]; its body is the call: [positional arguments, named ones, how to go on].
        body: Any = json.loads(b64decode(json.loads(note)[0]["body"]))
        told = body[0][0]
    except (ValueError, TypeError, LookupError):
        return []
    return told if isinstance(told, list) else [str(told)]
