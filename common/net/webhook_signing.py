"""Secrets and signatures of webhooks, after the Standard Webhooks specification 1.0.0.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, only symmetric signatures:
`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from pathlib import Path

PREFIX = "whsec_"
# Length of a secret in the specification.
LEAST_BYTES = 24
MOST_BYTES = 64


def read_secrets(text: str) -> tuple[str, ...]:
    """Return the secrets, separated by commas or white space. Raises ValueError, which contains none of them."""
    secrets = tuple(word for word in re.split(r"[,\s]+", text) if word)
    if not secrets or not all(LEAST_BYTES <= len(_key(secret)) <= MOST_BYTES for secret in secrets):
        message = f"must contain secrets of the form {PREFIX} and base64 of {LEAST_BYTES} to {MOST_BYTES} random bytes"
        raise ValueError(message)
    return secrets


def read_secrets_file(path: str) -> tuple[str, ...]:
    """Return the secrets in a file. Raises ValueError, which contains none of them."""
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        message = "must be a readable file of secrets, one per line"
        raise ValueError(message) from None
    return read_secrets(text)


def signed_headers(secrets: Sequence[str], *, id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that authenticate the body: one signature for each of the secrets.

    `timestamp` is the time of the attempt, in seconds since 1970.
    """
    content = f"{id_}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": id_,
        "webhook-timestamp": f"{timestamp}",
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    """Return the bytes that a secret encodes; empty for an invalid secret."""
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        return b""
