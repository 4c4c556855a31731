"""Webhooks: the events that the service posts to a `callback_url`, after Standard Webhooks 1.0.0."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from match_client.errors import InvalidWebhook
from match_client.results import Batch, Task

PREFIX = "whsec_"
TOLERANCE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A verified event. `id` is the same when it is sent again; `data` is the whole body.

    `type` is `tasks.ended`, with the `tasks`, or `batch.ended`, with the `batch`; ignore other types.
    """

    id: str
    type: str
    timestamp: datetime | None
    tasks: Sequence[Task]
    data: Mapping[str, Any]
    batch: Batch | None = None


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> Webhook:
    """Return the event of a request; `secrets` are the secrets that may have signed it.

    Raises InvalidWebhook for a missing or wrong signature, or one that is older or newer than `tolerance_s`.
    """
    received = {name.lower(): value for name, value in headers.items()}
    id_, timestamp = received.get("webhook-id", ""), received.get("webhook-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdecimal():
        raise InvalidWebhook("the header webhook-timestamp is missing or invalid", code="invalid_timestamp")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance_s:
        raise InvalidWebhook("the webhook is too old or too new", code="invalid_timestamp")
    content = f"{id_}.{timestamp}.".encode() + body
    accepted = [_signature(secret, content) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    signatures = received.get("webhook-signature", "").encode().split()
    if not any(hmac.compare_digest(one, other) for one in signatures for other in accepted):
        raise InvalidWebhook("the webhook has no valid signature", code="invalid_signature")
    return _event(id_, body)


def _signature(secret: str, content: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        raise ValueError(f"a webhook secret has the form {PREFIX} and base64") from None
    return b"v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256))


def _event(id_: str, body: bytes) -> Webhook:
    data = json.loads(body)
    timestamp = data.get("timestamp")
    return Webhook(
        id=id_,
        type=data["type"],
        timestamp=None if timestamp is None else datetime.fromisoformat(timestamp),
        tasks=tuple(Task.from_json(task) for task in data.get("tasks", ())),
        data=data,
        batch=Batch.from_json(data["batch"]) if data.get("batch") else None,
    )
