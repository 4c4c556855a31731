"""The queue's transport on a real Redis: one client a channel, a new one with a new pool, no transactions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery
from kombu.common import ignore_errors
from redis import Redis

from common.config import Settings
from common.queue.jobs import SINGLE_QUEUE
from common.queue.transport import WORKER_OPTION, Channel
from common.queue.unacked import Unacked
from dev.redis_server import RedisServer
from workers.app import redelivery_options


@pytest.fixture
def channel(redis_server: RedisServer, real_redis: Redis) -> Iterator[Channel]:
    assert real_redis.ping()
    app = Celery(broker=redis_server.url, set_as_current=False)
    app.conf.broker_transport = "common.queue.transport:Transport"
    with app.connection() as connection, connection.channel() as channel:
        yield channel
    app.close()


def client(channel: Channel) -> Redis:
    with channel.conn_or_acquire() as client:
        return client


def test_all_commands_of_a_channel_share_a_client(channel: Channel) -> None:
    first, second = client(channel), client(channel)

    assert isinstance(channel, Channel)
    assert first is second
    assert first.ping()


def test_a_new_pool_has_a_new_client(channel: Channel) -> None:
    before = client(channel)

    channel._disconnect_pools()

    after = client(channel)
    assert after is not before
    assert after.connection_pool is channel.pool
    assert after.ping()


def test_taking_and_acknowledging_a_message_needs_no_transaction(channel: Any, real_redis: Redis) -> None:
    channel.basic_publish(channel.prepare_message("hello"), exchange="", routing_key="transport-test")
    real_redis.config_resetstat()

    message = channel.basic_get("transport-test")
    unacknowledged = real_redis.hlen(channel.unacked_key), real_redis.zcard(channel.unacked_index_key)
    channel.basic_ack(message.delivery_tag)

    assert unacknowledged == (1, 1)
    assert (real_redis.hlen(channel.unacked_key), real_redis.zcard(channel.unacked_index_key)) == (0, 0)
    assert "cmdstat_multi" not in cast("dict[str, object]", real_redis.info("commandstats"))


def test_an_unacknowledged_message_names_its_worker(redis_server: RedisServer, real_redis: Redis) -> None:
    app = Celery(broker=redis_server.url, set_as_current=False)
    app.conf.update(
        broker_transport="common.queue.transport:Transport", broker_transport_options={WORKER_OPTION: "one"}
    )
    with app.connection() as connection, connection.channel() as channel:
        channel.basic_publish(channel.prepare_message("hello"), exchange="", routing_key=SINGLE_QUEUE)
        message = channel.basic_get(SINGLE_QUEUE)

        restored = [Unacked(real_redis).restore(["another"]), Unacked(real_redis).restore(["one"])]

        assert restored == [0, 1]
        assert channel.basic_get(SINGLE_QUEUE).body == message.body
    app.close()


def test_lock_of_a_killed_restore_expires_soon(
    redis_server: RedisServer, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_env({"REDIS_URL": redis_server.url})
    app = Celery(broker=redis_server.url, set_as_current=False)
    app.conf.update(
        broker_transport="common.queue.transport:Transport", broker_transport_options=redelivery_options(settings)
    )
    left_ms: list[int] = []
    with app.connection() as connection, connection.channel() as channel:
        real_redis.zadd(channel.unacked_index_key, {"of a dead worker": 1})
        monkeypatch.setattr(
            channel.qos,
            "restore_by_tag",
            lambda *_: left_ms.append(cast("int", real_redis.pttl(channel.unacked_mutex_key))),
        )

        channel.qos.restore_visible()
    app.close()

    # If this worker were killed now, the others could restore messages after the lock expires.
    [left] = left_ms
    assert 0 < left <= 10_000


def test_lost_connection_with_unacknowledged_messages_can_be_closed(tmp_path: Path) -> None:
    app = Celery(set_as_current=False)
    app.conf.broker_transport = "common.queue.transport:Transport"
    with RedisServer(tmp_path) as server, app.connection(server.url) as connection:
        channel = cast("Any", connection.default_channel)
        channel.basic_publish(channel.prepare_message("hello"), exchange="", routing_key="transport-test")
        channel.basic_get("transport-test")
        for one in (channel, connection.channel()):
            one.basic_consume("transport-test", no_ack=False, callback=print, consumer_tag="test")
        connection.transport.cycle.on_poll_start()
        server.kill()

        # Celery does the same; an error that it does not ignore here ends the worker.
        connection.collect()
        ignore_errors(connection, connection.close)

        assert channel.closed
    app.close()
