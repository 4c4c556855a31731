"""The queue's settings that both doors must agree on; plain data, no queue client."""

from typing import Any

TRANSPORT_OPTIONS: dict[str, Any] = {
    # The default of 10 loses acknowledgements under many threads.
    "max_connections": 200,
    # A half-open connection is noticed instead of waited on for ever.
    "socket_timeout": 30,
    "socket_keepalive": True,
    "health_check_interval": 25,
    # Work the queues in the order in which they are named, not in turn.
    "queue_order_strategy": "priority",
}

QUEUE_SETTINGS: dict[str, Any] = {
    "broker_transport": "common.transport:Transport",
    "broker_transport_options": TRANSPORT_OPTIONS,
    "task_serializer": "json",
    "accept_content": ["json"],
    # The ledger holds the outcome: a result backend reports unknown tasks as pending.
    "task_ignore_result": True,
}
