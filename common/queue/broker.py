"""The queue's settings that API and workers share: plain data, independent of Celery."""

import socket
from typing import Any
from urllib.parse import quote

from common.redis.client import ANSWER_WITHIN_S, sentinel_options
from common.redis.sentinels import SCHEME, Sentinels

# Seconds of silence before the first TCP keep-alive probe, seconds between probes, and the number of probes. Probes
# also prevent a firewall from dropping the connection.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

TRANSPORT_OPTIONS: dict[str, Any] = {
    # The default of 10 loses acknowledgements under many threads.
    "max_connections": 200,
    # Detects half-open connections; each one blocks a worker's main thread for this time.
    "socket_timeout": ANSWER_WITHIN_S,
    "socket_connect_timeout": ANSWER_WITHIN_S,
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)
    },
    "health_check_interval": 10,
    # Consume the queues in their listed order, not round-robin. Workers replace this by `workers.queue_order`.
    "queue_order_strategy": "priority",
    # No message has a priority. By default each queue has four lists.
    "priority_steps": [0],
}

QUEUE_SETTINGS: dict[str, Any] = {
    "broker_transport": "common.queue.transport:Transport",
    "broker_transport_options": TRANSPORT_OPTIONS,
    "task_serializer": "json",
    "accept_content": ["json"],
    # The ledger stores the outcome; a result backend would report unknown tasks as pending.
    "task_ignore_result": True,
}


# As in redis-py's own TLS connections (common/redis/client.py). If kombu chose the transport by the scheme, it would
# not verify the certificate; with a named transport, it would connect without TLS.
TLS: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


def queue_settings(redis_url: str) -> dict[str, Any]:
    """Return Celery's settings for the queue in the Redis at this URL."""
    if redis_url.startswith("rediss://"):
        return QUEUE_SETTINGS | {"broker_url": redis_url, "broker_use_ssl": TLS}
    if not redis_url.startswith(f"{SCHEME}://"):
        return QUEUE_SETTINGS | {"broker_url": redis_url}
    sentinels = Sentinels.parse(redis_url)
    options = {"master_name": sentinels.service, "sentinel_kwargs": sentinel_options(sentinels)}
    return QUEUE_SETTINGS | {
        "broker_url": ";".join(_kombu_url(sentinels, host, port) for host, port in sentinels.hosts),
        "broker_transport": "common.queue.transport:SentinelTransport",
        "broker_transport_options": TRANSPORT_OPTIONS | options,
    }


def _kombu_url(sentinels: Sentinels, host: str, port: int) -> str:
    login = f"{quote(sentinels.username or '', safe='')}:{quote(sentinels.password or '', safe='')}@"
    address = f"[{host}]" if ":" in host else host
    return f"{SCHEME}://{login if sentinels.password else ''}{address}:{port}/{sentinels.db}"
