"""Deliverers: callbacks are signed, repeated until accepted, and not delayed by a receiver that hangs."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from threading import Event
from time import time
from typing import Any

import pytest
from redis import Redis

from common.errors import FetchError
from common.queue.callbacks import Callback, CallbackState, Outbox
from common.queue.items import AddItem
from common.queue.jobs import RequestContext
from common.queue.keys import CALLBACK_DELIVERY, CALLBACK_DUE, CALLBACK_RECEIVER
from common.queue.ledger import Ledger
from common.queue.tasks import State, TaskResult
from support.tasks import enqueue, task_of
from support.waiting import wait_until
from workers.webhooks import Deliverer

SECRET = base64.b64encode(b"a secret of thirty-two bytes ...").decode()
URL = "https://hooks.example.org:443/one?token=SECRET"
HANGS = "https://hangs.example.org:443/"


class Receivers:
    """Responds with `answers` in turn and then repeats the last one; an error means no response."""

    def __init__(self) -> None:
        self.answers: list[int | FetchError] = [200]
        self.calls: list[tuple[str, bytes, Mapping[str, str]]] = []
        self.end_hanging = Event()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        if url.startswith(HANGS):
            self.end_hanging.wait()
            raise FetchError("hangs.example.org gave no complete answer within 10 s", code="timeout")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.calls.append((url, body, headers))
        if isinstance(answer, FetchError):
            raise answer
        return answer


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    receivers = Receivers()
    yield receivers
    receivers.end_hanging.set()


@pytest.fixture
def deliverer(fake_redis: Redis, receivers: Receivers) -> Iterator[Deliverer]:
    outbox = Outbox(fake_redis, lease_s=30, keep_s=3600)
    deliverer = Deliverer(outbox, receivers.post, secrets=[f"whsec_{SECRET}"])
    deliverer.start()
    yield deliverer
    receivers.end_hanging.set()
    deliverer.close()


@pytest.fixture
def end(ledger: Ledger) -> Callable[..., str]:
    """Return a function that finishes a task and returns its id."""

    def end(url: str = URL, **result: Any) -> str:
        item = AddItem(filepath="ä cat.jpg", url="http://example.org/a")
        [task] = enqueue(ledger, [item], context=RequestContext(callback_url=url))
        ledger.begin(task.id)
        ledger.finish([TaskResult(**{"task_id": task.id, "state": State.SUCCEEDED, **result})])
        return task.id

    return end


def let_time_pass(redis: Redis) -> None:
    for url in redis.zrange(CALLBACK_DUE, 0, -1):
        redis.zadd(CALLBACK_DUE, {url: 0}, xx=True)
    for key in redis.scan_iter(f"{CALLBACK_RECEIVER}*"):
        redis.hset(key, "until", 0)


def wait_for(ledger: Ledger, task_id: str, fits: Callable[[Callback], bool]) -> Callback:
    def callback() -> Callback | None:
        current = task_of(ledger, task_id).callback
        assert current is not None
        return current if fits(current) else None

    reached = wait_until(callback, "the callback reaches this state")
    assert reached is not None
    return reached


def is_delivered(callback: Callback) -> bool:
    return callback.state is CallbackState.DELIVERED


@pytest.mark.usefixtures("deliverer")
def test_a_delivery_is_signed_as_a_receiver_verifies_it(
    ledger: Ledger, fake_redis: Redis, receivers: Receivers, end: Any
) -> None:
    task_id = end()
    let_time_pass(fake_redis)

    wait_for(ledger, task_id, is_delivered)

    [(url, body, headers)] = receivers.calls
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(base64.b64decode(SECRET), signed, hashlib.sha256).digest()
    assert url == URL
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert abs(int(headers["webhook-timestamp"]) - time()) < 60
    assert headers["Content-Type"] == "application/json"


@pytest.mark.usefixtures("deliverer")
def test_a_delivery_reports_images_without_features(
    ledger: Ledger, fake_redis: Redis, receivers: Receivers, end: Any
) -> None:
    task_id = end(warning="featureless")
    let_time_pass(fake_redis)

    wait_for(ledger, task_id, is_delivered)

    [task] = json.loads(receivers.calls[0][1])["tasks"]
    assert (task["state"], task["error"], task["warning"]["code"]) == ("succeeded", None, "featureless")
    assert "without features" in task["warning"]["message"]


@pytest.mark.usefixtures("deliverer")
def test_a_delivery_reports_tasks_as_they_ended(
    ledger: Ledger, fake_redis: Redis, receivers: Receivers, end: Any
) -> None:
    task_id = end(state=State.FAILED, code="http_status", error="the host answered with status 404")
    let_time_pass(fake_redis)

    wait_for(ledger, task_id, is_delivered)

    body = json.loads(receivers.calls[0][1])
    [task] = body.pop("tasks")
    assert body == {"type": "tasks.ended", "timestamp": task["finished"]}
    assert (task["id"], task["state"], task["filepath"], task["attempts"]) == (task_id, "failed", "ä cat.jpg", 1)
    assert task["error"] == {"code": "http_status", "message": "the host answered with status 404"}
    assert "callback" not in task


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (500, "hooks.example.org answered with status 500"),
        (429, "hooks.example.org answered with status 429"),
        (302, "hooks.example.org answered with status 302"),
        (404, "hooks.example.org answered with status 404"),
        (FetchError("hooks.example.org takes no connection", code="connect_failed"), "takes no connection"),
    ],
)
@pytest.mark.usefixtures("deliverer")
def test_a_rejected_delivery_is_repeated_unchanged(
    ledger: Ledger, fake_redis: Redis, receivers: Receivers, end: Any, answer: Any, problem: str
) -> None:
    receivers.answers = [answer, 204]
    task_id = end()
    let_time_pass(fake_redis)
    failed = wait_for(ledger, task_id, lambda callback: callback.attempts == 1)

    let_time_pass(fake_redis)
    taken = wait_for(ledger, task_id, is_delivered)

    assert problem in (failed.error or "")
    assert failed.next is not None
    assert taken == Callback(CallbackState.DELIVERED, 2)
    (_, first, first_headers), (_, second, second_headers) = receivers.calls
    assert (first, first_headers["webhook-id"]) == (second, second_headers["webhook-id"])


@pytest.mark.usefixtures("deliverer")
def test_a_receiver_that_is_gone_is_called_once(
    ledger: Ledger, fake_redis: Redis, receivers: Receivers, end: Any
) -> None:
    receivers.answers = [410]
    task_id = end()
    let_time_pass(fake_redis)

    reported = wait_for(ledger, task_id, lambda callback: callback.attempts == 1)

    assert (reported.state, reported.next) == (CallbackState.FAILED, None)
    assert fake_redis.zcard(CALLBACK_DUE) == 0


@pytest.mark.usefixtures("deliverer")
def test_a_receiver_that_hangs_holds_up_no_other(
    ledger: Ledger, fake_redis: Redis, receivers: Receivers, end: Any
) -> None:
    for number in range(20):
        end(HANGS + f"{number}")
    end(HANGS)
    let_time_pass(fake_redis)
    task_id = end()
    let_time_pass(fake_redis)

    wait_for(ledger, task_id, is_delivered)

    assert not receivers.end_hanging.is_set()


def test_a_stopping_process_releases_its_deliveries(
    fake_redis: Redis, receivers: Receivers, end: Any, deliverer: Deliverer
) -> None:
    task_id = end(HANGS)
    let_time_pass(fake_redis)
    wait_until(lambda: fake_redis.exists(CALLBACK_DELIVERY + HANGS), "the callback is being delivered")

    deliverer.close()

    assert not receivers.end_hanging.is_set()
    let_time_pass(fake_redis)
    again = Outbox(fake_redis, lease_s=30, keep_s=3600).claim()
    assert again is not None
    assert [ended.task_id for ended in again.tasks] == [task_id]
    assert again.attempt == 2


def test_neither_url_nor_secret_is_logged(
    ledger: Ledger,
    fake_redis: Redis,
    receivers: Receivers,
    end: Any,
    deliverer: Deliverer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    receivers.answers = [500]
    task_id = end()
    let_time_pass(fake_redis)

    wait_for(ledger, task_id, lambda callback: callback.attempts == 1)
    deliverer.close()

    assert "1 callback will be retried, attempt 1 failed: " in caplog.text
    assert "hooks.example.org answered with status 500" in caplog.text
    assert "SECRET" not in caplog.text
    assert SECRET not in caplog.text
