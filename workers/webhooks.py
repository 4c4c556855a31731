"""Tells senders that their tasks have ended: what the outbox has goes out as signed webhooks, and never in work's way.

One thread claims what is due, and each delivery has a thread of its own, a few at once; all end with the process. What
a process leaves behind is another's when its claim is over.
"""

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from threading import BoundedSemaphore, Event, Thread
from time import monotonic, time

from common.errors import FetchError, MatchError
from common.net.addresses import read_url
from common.net.webhook_signing import signed_headers
from common.queue.callbacks import CallState, Delivery, DeliveryResult, Outbox
from common.queue.task_json import task_json
from common.queue.tasks import task_of
from common.times import iso

log = logging.getLogger(__name__)

EVENT = "tasks.ended"
# Deliveries under way in a process: receivers that hang hold a few of these, one each.
MOST_AT_ONCE = 8
LOOK_EVERY_S = 1.0
# Without Redis.
PAUSE_S = 5.0
# A process that ends waits so long for answers that would soon be there: else these deliveries are made twice.
GRACE_S = 2.0
# Pauses differ by so much: what failed together does not come back together.
JITTER = (0.8, 1.2)
GONE = 410

Post = Callable[[str, bytes, Mapping[str, str]], int]


class Deliverer:
    """Sends what the outbox has by `post`, which returns the status of an answer, and raises FetchError without one."""

    def __init__(self, outbox: Outbox, post: Post, *, secrets: Sequence[str]) -> None:
        self._outbox = outbox
        self._post = post
        self._secrets = secrets
        self._stop = Event()
        self._look = Event()
        self._places = BoundedSemaphore(MOST_AT_ONCE)
        self._thread = Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def hurry(self) -> None:
        """Begin no more deliveries: the process is to end."""
        self._stop.set()
        self._look.set()

    def close(self) -> None:
        """End the thread, and wait a moment for the deliveries that are under way."""
        self.hurry()
        self._thread.join()
        deadline = monotonic() + GRACE_S
        for _ in range(MOST_AT_ONCE):
            if not self._places.acquire(timeout=max(0.0, deadline - monotonic())):
                return

    def _run(self) -> None:
        while not self._stop.is_set():
            # The place is given back by the delivery's own thread.
            if not self._places.acquire(timeout=LOOK_EVERY_S):
                continue
            self._look.clear()
            if pause_s := self._begin():
                self._places.release()
                # DeliveryResult to stop before the event was cleared, it is not waited for.
                if not self._stop.is_set():
                    self._look.wait(pause_s)

    def _begin(self) -> float:
        """Begin a delivery that is due; return how long to wait where there is none, else 0."""
        try:
            delivery = self._outbox.claim()
            if delivery is None:
                return LOOK_EVERY_S
            Thread(target=self._deliver, args=(delivery,), name="webhook", daemon=True).start()
        except MatchError as error:
            log.warning("callbacks wait: %s", error)
            return PAUSE_S
        except Exception:
            # Without this thread nobody would be called back: whatever broke, it goes on.
            log.exception("callbacks wait")
            return PAUSE_S
        return 0

    def _deliver(self, delivery: Delivery) -> None:
        try:
            result, problem, responded = self._call(delivery)
            jitter = random.uniform(*JITTER)  # noqa: S311 - spreads load
            came_to = self._outbox.report(delivery, result, problem=problem, responded=responded, jitter=jitter)
            _log(delivery, came_to, problem)
        except MatchError as error:
            log.warning("a delivery of %d callbacks may come twice: %s", len(delivery.ends), error)
        except Exception:
            log.exception("a delivery of %d callbacks broke", len(delivery.ends))
        finally:
            self._places.release()
            # Another may have waited for this one's place at its receiver.
            self._look.set()

    def _call(self, delivery: Delivery) -> tuple[DeliveryResult, str, bool]:
        """Send the delivery; return how that ended, what went wrong, and whether the receiver answered."""
        body = body_of(delivery)
        headers = signed_headers(self._secrets, id_=delivery.id, timestamp=int(time()), body=body)
        try:
            status = self._post(delivery.url, body, {"Content-Type": "application/json", **headers})
        except FetchError as error:
            return DeliveryResult.FAILED, str(error), False
        result = judged(status)
        problem = (
            "" if result is DeliveryResult.ACCEPTED else f"{read_url(delivery.url).host} answered with status {status}"
        )
        return result, problem, True


def judged(status: int) -> DeliveryResult:
    """Return what an answer with this status means.

    >>> [judged(status).value for status in (200, 204, 302, 410, 500)]
    ['accepted', 'accepted', 'failed', 'gone', 'failed']
    """
    if 200 <= status <= 299:  # noqa: PLR2004 - HTTP statuses
        return DeliveryResult.ACCEPTED
    return DeliveryResult.GONE if status == GONE else DeliveryResult.FAILED


def body_of(delivery: Delivery) -> bytes:
    """Return the delivery as JSON, the same in every attempt: each task as it was when it ended."""
    told = {
        "type": EVENT,
        "timestamp": iso(max(ended.ended_at for ended in delivery.ends)),
        "tasks": [task_json(task_of(ended.task_id, ended.fields)) for ended in delivery.ends],
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _log(delivery: Delivery, came_to: CallState | None, problem: str) -> None:
    told = f"{len(delivery.ends)} callback{'s are' if len(delivery.ends) > 1 else ' is'}"
    if came_to is CallState.FAILED:
        log.warning("%s given up: %s", told, problem)
    elif came_to is CallState.PENDING:
        log.info("%s tried again, attempt %d failed: %s", told, delivery.attempt, problem)
