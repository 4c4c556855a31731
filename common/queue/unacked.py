"""Unacknowledged messages: workers have received them and not finished their tasks."""

import json
from base64 import b64decode
from collections.abc import Collection
from typing import Any, cast

from redis import Redis

from common.queue.jobs import CONSUMED_QUEUES, WORKER_PROPERTY
from common.queue.keys import UNACKED, UNACKED_INDEX
from common.queue.scripts import script
from common.redis.client import redis_errors


class Unacked:
    """The unacknowledged messages of all workers, in kombu's keys.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._restore = script(redis, "restore_message")

    def task_ids(self) -> set[str]:
        """Return the ids of the tasks with an unacknowledged message; kombu redelivers it if its worker died."""
        return {task_id for entry in self._entries().values() for task_id in _tasks_of(entry)}

    def restore(self, workers: Collection[str]) -> int:
        """Return the messages that these workers have received to their queues, and return their number.

        Several processes may call it at once: each message is moved once.
        """
        restored = 0
        for tag, entry in self._entries().items():
            worker, queue, message = _delivery_of(entry)
            if worker in workers and queue in CONSUMED_QUEUES:
                with redis_errors():
                    restored += int(
                        cast("int", self._restore(tag=tag.decode(), entry=entry.decode(), queue=queue, message=message))
                    )
        return restored

    def _entries(self) -> dict[bytes, bytes]:
        """Return the messages by their delivery tag.

        An incomplete acknowledgement leaves a message in the hash but not in the index; kombu does not redeliver it.
        """
        with redis_errors():
            tags = cast("list[bytes]", self._redis.zrange(UNACKED_INDEX, 0, -1))
            messages = cast("list[bytes | None]", self._redis.hmget(UNACKED, tags)) if tags else []
        return {tag: message for tag, message in zip(tags, messages, strict=True) if message is not None}


def _delivery_of(entry: bytes) -> tuple[str | None, str, str]:
    """Return the worker that received a message, its queue, and the message itself; no worker if it is unknown."""
    try:
        message, _exchange, queue = json.loads(entry)
        return message["properties"].get(WORKER_PROPERTY), queue, json.dumps(message)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None, "", ""


def _tasks_of(entry: bytes) -> list[str]:
    """Return the task ids of an unacknowledged message; empty if it is not a message of tasks."""
    try:
        # [message, exchange, routing key]; the message's body is [args, kwargs, options].
        body: Any = json.loads(b64decode(json.loads(entry)[0]["body"]))
        task_ids = body[0][0]
    except (ValueError, TypeError, LookupError):
        return []
    return task_ids if isinstance(task_ids, list) else [str(task_ids)]
