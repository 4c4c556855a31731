"""The deliverer: sends the callbacks in the outbox as signed webhooks.

One thread claims deliveries that are due, and each delivery has its own thread, a few at once. All these threads are
daemons. When a process ends, the claims of its unfinished deliveries expire, and other processes deliver them.
"""

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from threading import BoundedSemaphore, Event, Thread
from time import monotonic, time
from typing import Any

from common.errors import FetchError, MatchError
from common.net.addresses import read_url
from common.net.webhook_signing import signed_headers
from common.queue.batch_json import batch_json
from common.queue.batches import batch_of
from common.queue.callbacks import CallbackState, Delivery, DeliveryResult, EndedBatch, Outbox
from common.queue.task_json import task_json
from common.queue.tasks import task_of
from common.times import iso

log = logging.getLogger(__name__)

TASKS_ENDED = "tasks.ended"
BATCH_ENDED = "batch.ended"
# Concurrent deliveries of a process, over all receivers.
MAX_DELIVERIES = 8
POLL_EVERY_S = 1.0
# Pause after an error, for instance while Redis is unavailable.
PAUSE_S = 5.0
# Time that a shutdown waits for running deliveries: an unfinished one is sent again.
GRACE_S = 2.0
# Range of the factor of retry pauses, which spreads retries of deliveries that failed at the same time.
JITTER = (0.8, 1.2)

Post = Callable[[str, bytes, Mapping[str, str]], int]


class Deliverer:
    """Delivers callbacks with `post`, which returns the status of the response or raises FetchError without one."""

    def __init__(self, outbox: Outbox, post: Post, *, secrets: Sequence[str]) -> None:
        self._outbox = outbox
        self._post = post
        self._secrets = secrets
        self._stop = Event()
        self._changed = Event()
        self._slots = BoundedSemaphore(MAX_DELIVERIES)
        self._thread = Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin_shutdown(self) -> None:
        """Begin no more deliveries: the process is shutting down."""
        self._stop.set()
        self._changed.set()

    def close(self) -> None:
        """End the thread, and wait up to GRACE_S for running deliveries."""
        self.begin_shutdown()
        self._thread.join()
        deadline = monotonic() + GRACE_S
        for _ in range(MAX_DELIVERIES):
            if not self._slots.acquire(timeout=max(0.0, deadline - monotonic())):
                return

    def _run(self) -> None:
        while not self._stop.is_set():
            # The delivery's thread releases the slot.
            if not self._slots.acquire(timeout=POLL_EVERY_S):
                continue
            self._changed.clear()
            if pause_s := self._begin():
                self._slots.release()
                # A shutdown may have set the event before it was cleared.
                if not self._stop.is_set():
                    self._changed.wait(pause_s)

    def _begin(self) -> float:
        """Begin a delivery that is due, and return 0; return the seconds to wait if none is due."""
        try:
            delivery = self._outbox.claim()
            if delivery is None:
                return POLL_EVERY_S
            Thread(target=self._deliver, args=(delivery,), name="webhook", daemon=True).start()
        except MatchError as error:
            log.warning("cannot claim callbacks: %s", error)
            return PAUSE_S
        except Exception:
            # Continue: without this thread no callback of this process is sent.
            log.exception("unexpected error while claiming callbacks")
            return PAUSE_S
        return 0

    def _deliver(self, delivery: Delivery) -> None:
        try:
            result, problem, responded = self._call(delivery)
            jitter = random.uniform(*JITTER)  # noqa: S311 - spreads load
            state = self._outbox.report(delivery, result, problem=problem, responded=responded, jitter=jitter)
            _log(delivery, state, problem)
        except MatchError as error:
            log.warning("cannot record a delivery of %d callbacks, it may be sent twice: %s", delivery.count, error)
        except Exception:
            log.exception("unexpected error in a delivery of %d callbacks", delivery.count)
        finally:
            self._slots.release()
            # Another delivery may have waited for the slot of this receiver.
            self._changed.set()

    def _call(self, delivery: Delivery) -> tuple[DeliveryResult, str, bool]:
        """Send the delivery; return the result, the reason for a failure, and whether the receiver responded."""
        body = body_of(delivery)
        headers = signed_headers(self._secrets, id_=delivery.id, timestamp=int(time()), body=body)
        try:
            status = self._post(delivery.url, body, {"Content-Type": "application/json", **headers})
        except FetchError as error:
            return DeliveryResult.FAILED, str(error), False
        result = result_of(status)
        if result is DeliveryResult.ACCEPTED:
            return result, "", True
        return result, f"{read_url(delivery.url).host} answered with status {status}", True


def result_of(status: int) -> DeliveryResult:
    """Return the result of an attempt by the status of the response.

    >>> [result_of(status).value for status in (200, 204, 302, 410, 500)]
    ['accepted', 'accepted', 'failed', 'gone', 'failed']
    """
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return DeliveryResult.ACCEPTED
    return DeliveryResult.GONE if status == HTTPStatus.GONE else DeliveryResult.FAILED


def body_of(delivery: Delivery) -> bytes:
    """Return the JSON body, the same in every attempt: each task and batch in its state at its end."""
    body = _ended_tasks(delivery) if delivery.batch is None else _ended_batch(delivery.batch)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _ended_tasks(delivery: Delivery) -> dict[str, Any]:
    return {
        "type": TASKS_ENDED,
        "timestamp": iso(max(ended.ended_at for ended in delivery.tasks)),
        "tasks": [task_json(task_of(ended.task_id, ended.fields)) for ended in delivery.tasks],
    }


def _ended_batch(ended: EndedBatch) -> dict[str, Any]:
    batch = batch_of(ended.batch_id, ended.fields, now=ended.ended_at)
    return {"type": BATCH_ENDED, "timestamp": iso(ended.ended_at), "batch": batch_json(batch)}


def _log(delivery: Delivery, state: CallbackState | None, problem: str) -> None:
    callbacks = f"{delivery.count} callback{'s' if delivery.count > 1 else ''}"
    if state is CallbackState.FAILED:
        log.warning("%s failed and will not be retried: %s", callbacks, problem)
    elif state is CallbackState.PENDING:
        log.info("%s will be retried, attempt %d failed: %s", callbacks, delivery.attempt, problem)
