"""Redis's refusals as our errors: what passes is told apart from what does not, and nothing of a command gets out."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as NoAnswer

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


def test_too_few_replicas_pass(client: Redis) -> None:
    client.config_set("min-replicas-to-write", 1)

    with pytest.raises(QueueUnavailable, match="NOREPLICAS"), redis_errors():
        client.set("key", "value")


def test_a_replica_is_no_place_to_write_for_now(client: Redis, server: RedisServer) -> None:
    client.replicaof("127.0.0.1", server.port)

    with pytest.raises(QueueUnavailable, match="replica"), redis_errors():
        client.set("key", "value")


def test_a_refused_command_is_told_without_what_it_carried(client: Redis) -> None:
    client.set("key", "value")

    with pytest.raises(QueueError, match="WRONGTYPE") as raised, redis_errors():
        client.pipeline().hset("key", "field", "secret").execute()

    assert not isinstance(raised.value, QueueUnavailable)
    assert "secret" not in "".join(str(error) for error in (raised.value, raised.value.__cause__))
    assert raised.value.__suppress_context__


def test_one_of_many_commands_that_cannot_be_written_now_passes(client: Redis) -> None:
    client.config_set("min-replicas-to-write", 1)

    with pytest.raises(QueueUnavailable), redis_errors():
        client.pipeline(transaction=False).get("key").set("key", "value").execute()


def test_a_redis_that_fell_silent_is_not_waited_for_each_time_however_short_the_wait(server: RedisServer) -> None:
    with connect(server.url, answer_within_s=0.2) as client:
        client.ping()
        os.kill(server.pid, signal.SIGSTOP)

        told = [no_answer(client) for _ in range(5)]

        os.kill(server.pid, signal.SIGCONT)

    assert "Redis did not answer a moment ago" in told


def no_answer(client: Redis) -> str:
    """Return how the client says that there is none."""
    with pytest.raises(NoAnswer) as raised:
        client.ping()
    return str(raised.value)
