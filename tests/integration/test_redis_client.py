"""Redis errors as Match errors: outages differ from permanent errors, and no text contains a command's values."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as NoReply

from common.errors import QueueError, QueueUnavailable
from common.redis.client import connect, redis_errors
from dev.redis_server import RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    with connect(server.url) as client:
        yield client


def test_too_few_replicas_are_an_outage(client: Redis) -> None:
    client.config_set("min-replicas-to-write", 1)

    with pytest.raises(QueueUnavailable, match="NOREPLICAS"), redis_errors():
        client.set("key", "value")


def test_write_to_a_replica_is_an_outage(client: Redis, server: RedisServer) -> None:
    client.replicaof("127.0.0.1", server.port)

    with pytest.raises(QueueUnavailable, match="replica"), redis_errors():
        client.set("key", "value")


def test_refused_command_is_reported_without_its_values(client: Redis) -> None:
    client.set("key", "value")

    with pytest.raises(QueueError, match="WRONGTYPE") as raised, redis_errors():
        client.pipeline().hset("key", "field", "secret").execute()

    assert not isinstance(raised.value, QueueUnavailable)
    assert "secret" not in "".join(str(error) for error in (raised.value, raised.value.__cause__))
    assert raised.value.__suppress_context__


def test_refused_write_in_a_pipeline_is_an_outage(client: Redis) -> None:
    client.config_set("min-replicas-to-write", 1)

    with pytest.raises(QueueUnavailable), redis_errors():
        client.pipeline(transaction=False).get("key").set("key", "value").execute()


def test_silent_redis_fails_later_calls_at_once(server: RedisServer) -> None:
    with connect(server.url, answer_within_s=0.2) as client:
        client.ping()
        os.kill(server.pid, signal.SIGSTOP)

        messages = [timeout_message(client) for _ in range(5)]

        os.kill(server.pid, signal.SIGCONT)

    assert "Redis did not answer a moment ago" in messages


def timeout_message(client: Redis) -> str:
    """Return the text of the time-out error."""
    with pytest.raises(NoReply) as raised:
        client.ping()
    return str(raised.value)
