"""The worker's transport on a real Redis: one client a channel, and a new one with a new pool."""

from collections.abc import Iterator

import pytest
from celery import Celery
from redis import Redis

from dev.redis_server import RedisServer
from workers.transport import Channel


@pytest.fixture
def channel(redis_server: RedisServer, real_redis: Redis) -> Iterator[Channel]:
    assert real_redis.ping()
    app = Celery(broker=redis_server.url, set_as_current=False)
    app.conf.broker_transport = "workers.transport:Transport"
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
