"""Secrets and signatures of webhooks, as the Standard Webhooks specification 1.0.0 has them.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, symmetric signatures alone:
`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from pathlib import Path

PREFIX = "whsec_"
# Bytes of a secret, by the specification.
LEAST_BYTES = 24
MOST_BYTES = 64


def read_secrets(text: str) -> tuple[str, ...]:
    """Return the secrets, parted by commas or white space; raises ValueError, which names none of them."""
    found = tuple(word for word in re.split(r"[,\s]+", text) if word)
    if not found or not all(LEAST_BYTES <= len(_key(secret)) <= MOST_BYTES for secret in found):
        message = f"must hold secrets that are {PREFIX} and base64 of {LEAST_BYTES} to {MOST_BYTES} random bytes"
        raise ValueError(message)
    return found


def read_secrets_file(path: str) -> tuple[str, ...]:
    """Return the secrets in a file; raises ValueError, which names none of them."""
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        message = "must be a readable file of secrets, one a line"
        raise ValueError(message) from None
    return read_secrets(text)


def signed_headers(secrets: Sequence[str], *, id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers by which a receiver knows the body to be ours: a signature by each of the secrets.

    `timestamp` is that of the attempt, in seconds since 1970.
    """
    content = f"{id_}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": id_,
        "webhook-timestamp": f"{timestamp}",
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    """Return the bytes that a secret stands for; none where it is no secret."""
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        return b""
