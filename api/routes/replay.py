"""Idempotency keys over HTTP: the key of the current request, and the header that marks a replayed reply."""

from flask import Response, g

from api.use_cases.idempotency import IdempotencyKey

REPLAYED = "Idempotency-Replayed"


def idempotency_key(value: str | None) -> IdempotencyKey:
    """Return the request's idempotency key; each API key has idempotency keys of its own."""
    return IdempotencyKey(value, g.key.name if g.key is not None else "")


def mark_replay(response: Response, *, replayed: bool) -> Response:
    """Return the response, with the header `Idempotency-Replayed` if it repeats an earlier one."""
    if replayed:
        response.headers[REPLAYED] = "true"
    return response
