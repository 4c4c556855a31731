"""Waiting for tasks on a real Redis: a wait ends at once with its own task, or at its timeout."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any

import pytest
from redis import Redis

from api.use_cases.wait_for_tasks import POLL_EVERY_S, TaskWaiter
from common.queue.host_limits import Fault
from common.queue.keys import CLOSED_CHANNEL
from common.queue.ledger import Ledger
from common.queue.tasks import State
from common.redis.client import connect
from dev.redis_server import RedisServer
from support.proxy import Proxy
from support.tasks import accept_urls, begin, ledger_in, succeed
from support.waiting import wait_until

LONG_S = 30


@pytest.fixture
def ledger(real_redis: Redis) -> Ledger:
    return ledger_in(real_redis)


@pytest.fixture
def waiters(real_redis: Redis, ledger: Ledger) -> Iterator[TaskWaiter]:
    waiters = TaskWaiter(real_redis, ledger)
    yield waiters
    waiters.close()


def test_hundred_waiters_are_all_notified(waiters: TaskWaiter, ledger: Ledger) -> None:
    tasks = accept_urls(ledger, 100)
    with ThreadPoolExecutor(100) as pool:
        waits = [pool.submit(waiters.wait, task.id, timeout_s=LONG_S) for task in tasks]

        succeed(ledger, *(task.id for task in tasks))

        ended = [wait.result() for wait in waits]

    assert [(task.id, task.state) for task in ended if task] == [(task.id, State.SUCCEEDED) for task in tasks]


def test_ended_task_is_returned_at_once(waiters: TaskWaiter, ledger: Ledger) -> None:
    [task] = accept_urls(ledger, 1)
    succeed(ledger, task.id)

    ended = waiters.wait(task.id, timeout_s=LONG_S)

    assert ended is not None
    assert ended.state is State.SUCCEEDED


def test_wait_times_out_while_other_tasks_end(waiters: TaskWaiter, ledger: Ledger) -> None:
    awaited, other = accept_urls(ledger, 2)
    succeed(ledger, other.id)

    ended = waiters.wait(awaited.id, timeout_s=0.3)

    assert ended is not None
    assert ended.state is State.PENDING


def test_wait_ends_when_the_next_try_is_later(waiters: TaskWaiter, ledger: Ledger) -> None:
    [task] = accept_urls(ledger, 1)
    begin(ledger, task.id)
    fault = Fault(code="http_rate_limited", error="status 429", is_rejection=True, retry_after_s=10 * LONG_S)

    with ThreadPoolExecutor() as pool:
        wait = pool.submit(waiters.wait, task.id, timeout_s=LONG_S)
        ledger.defer(task.id, fault)
        began = monotonic()
        deferred: Any = wait.result()

    assert (deferred.state, deferred.cause) == (State.PENDING, ("http_rate_limited", "status 429"))
    assert monotonic() - began < LONG_S / 2


def test_an_unknown_task_is_not_waited_for(waiters: TaskWaiter) -> None:
    assert waiters.wait("nobody", timeout_s=LONG_S) is None


def test_lost_announcement_is_replaced_by_polling(
    waiters: TaskWaiter, ledger: Ledger, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.use_cases.wait_for_tasks.POLL_EVERY_S", POLL_EVERY_S / 50)
    [task] = accept_urls(ledger, 1)
    monkeypatch.setattr(waiters, "_notify", lambda _task_id: None)

    with ThreadPoolExecutor() as pool:
        wait = pool.submit(waiters.wait, task.id, timeout_s=LONG_S)
        listen(real_redis)
        succeed(ledger, task.id)
        ended: Any = wait.result()

    assert ended.state is State.SUCCEEDED


def test_listener_reconnects_when_its_connection_is_closed(
    waiters: TaskWaiter, ledger: Ledger, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = accept_urls(ledger, 2)
    waiters.wait(first.id, timeout_s=0.01)
    listen(real_redis)
    # From now on only an announcement ends a wait.
    monkeypatch.setattr("api.use_cases.wait_for_tasks.POLL_EVERY_S", LONG_S)
    real_redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    listen(real_redis)

    with ThreadPoolExecutor() as pool:
        wait = pool.submit(waiters.wait, second.id, timeout_s=LONG_S)
        sleep(0.2)
        succeed(ledger, second.id)
        ended: Any = wait.result(timeout=LONG_S / 2)

    assert ended.state is State.SUCCEEDED


def test_silent_connection_is_replaced(
    ledger: Ledger, redis_server: RedisServer, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.use_cases.wait_for_tasks.QUIET_S", 0.5)
    monkeypatch.setattr("api.use_cases.wait_for_tasks.ANSWER_WITHIN_S", 1.0)
    with Proxy(redis_server.port) as proxy, connect(proxy.url("redis")) as distant:
        waiters = TaskWaiter(distant, ledger)
        waiters.wait(accept_urls(ledger, 1)[0].id, timeout_s=0.01)
        listen(real_redis)

        # Neither end notices it: Redis still counts the connection.
        proxy.forget()

        listen(real_redis, listeners=2)
        waiters.close()


def test_idle_connection_is_kept(
    waiters: TaskWaiter, ledger: Ledger, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.use_cases.wait_for_tasks.QUIET_S", 0.0)
    waiters.wait(accept_urls(ledger, 1)[0].id, timeout_s=0.01)
    listen(real_redis)
    [before] = real_redis.client_list(_type="pubsub")

    wait_for_ping(real_redis, before["id"])

    [after] = real_redis.client_list(_type="pubsub")
    assert after["id"] == before["id"]


def wait_for_ping(redis: Redis, client: str) -> None:
    wait_until(lambda: any(one["id"] == client and one["cmd"] == "ping" for one in redis.client_list()), "a ping")


def listen(redis: Redis, *, listeners: int = 1) -> None:
    """Return when so many connections listen to announcements."""
    channel = CLOSED_CHANNEL
    wait_until(
        lambda: dict(redis.pubsub_numsub(channel))[channel.encode()] >= listeners, f"{listeners} connections listen"
    )
