"""The queue's settings that both doors must agree on; plain data, no queue client."""

import socket
from typing import Any
from urllib.parse import quote

from common.redis.client import ANSWER_WITHIN_S, sentinel_options
from common.redis.sentinels import SCHEME, Sentinels

# Seconds of silence until the kernel asks whether the other end is there, and between its questions; how many of them.
# Meanwhile a firewall does not forget the connection.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

TRANSPORT_OPTIONS: dict[str, Any] = {
    # The default of 10 loses acknowledgements under many threads.
    "max_connections": 200,
    # A half-open connection is noticed instead of waited on for ever; each costs a worker's main thread so long.
    "socket_timeout": ANSWER_WITHIN_S,
    "socket_connect_timeout": ANSWER_WITHIN_S,
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)
    },
    "health_check_interval": 10,
    # Work the queues in the order in which they are named, not in turn.
    "queue_order_strategy": "priority",
}

QUEUE_SETTINGS: dict[str, Any] = {
    "broker_transport": "common.queue.transport:Transport",
    "broker_transport_options": TRANSPORT_OPTIONS,
    "task_serializer": "json",
    "accept_content": ["json"],
    # The ledger holds the outcome: a result backend reports unknown tasks as pending.
    "task_ignore_result": True,
}


# What redis-py's own connections do by TLS (common/redis/client.py). kombu would look at the scheme, and not check the
# certificate, if it chose the transport; with a transport that is named it would speak without TLS.
TLS: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


def queue_settings(redis_url: str) -> dict[str, Any]:
    """Return Celery's settings for the queue in the Redis at this URL."""
    if redis_url.startswith("rediss://"):
        return QUEUE_SETTINGS | {"broker_url": redis_url, "broker_use_ssl": TLS}
    if not redis_url.startswith(f"{SCHEME}://"):
        return QUEUE_SETTINGS | {"broker_url": redis_url}
    sentinels = Sentinels.parse(redis_url)
    known = {"master_name": sentinels.service, "sentinel_kwargs": sentinel_options(sentinels)}
    return QUEUE_SETTINGS | {
        "broker_url": ";".join(_kombu_url(sentinels, host, port) for host, port in sentinels.hosts),
        "broker_transport": "common.queue.transport:SentinelTransport",
        "broker_transport_options": TRANSPORT_OPTIONS | known,
    }


def _kombu_url(sentinels: Sentinels, host: str, port: int) -> str:
    login = f"{quote(sentinels.username or '', safe='')}:{quote(sentinels.password or '', safe='')}@"
    place = f"[{host}]" if ":" in host else host
    return f"{SCHEME}://{login if sentinels.password else ''}{place}:{port}/{sentinels.db}"
