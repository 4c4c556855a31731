"""Redaction of secrets in logs and spans: secrets of the settings, and credentials and queries of URLs and headers."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from urllib.parse import parse_qsl, unquote

from common.config import Settings

REDACTED = "[...]"
# A shorter secret may be an ordinary word.
_SHORTEST_SECRET = 5
# Maximum characters of a line and of a text: the search for secrets takes quadratic time on a crafted line.
_LONGEST_LINE = 2_000
_LONGEST_TEXT = 32_000

# A URL extends to the next space: it may contain any other character.
_URL = re.compile(r"\b([a-z][a-z0-9+.-]*://)(\S*)", re.IGNORECASE)
_HOST_PORT = re.compile(r"(\[[0-9a-f:.%]+\]|[^:@\[\]]*)(:\d*)?\W*", re.IGNORECASE)
_ENCODED_URL = re.compile(r"\S*%3a%2f%2f\S*", re.IGNORECASE)
_LOGIN = re.compile(r"[^\s/@:'\"]*:[^\s/@]+@(?=[\w\[])")
# The login in the URL of a setting; urlsplit() rejects lists of hosts (common/redis/sentinels.py).
_USERINFO = re.compile(r"[^/?#]+://([^/?#]*)@")
_QUERY = re.compile(r"(/[^\s?]*)\?\S+|(?<=[^\s?])\?[^\s?]*=\S*")
# API keys of Match: a client may put one into a path by mistake.
_KEY = re.compile(r"\bmatch_[\w-]{43}(?![\w-])")
_CREDENTIAL = re.compile(r"\b(bearer|basic|apikey) +[\w.~+/=-]{12,}", re.IGNORECASE)


class Redactor:
    """Redacts these secrets, and credentials and queries of URLs, in log fields and span attributes."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def redact(self, value: Any) -> Any:  # noqa: ANN401 - a log field has any type
        """Return the value without secrets, as a JSON type: other objects become their text."""
        if isinstance(value, str):
            return self._redact_text(value)
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, Mapping):
            return {self.redact(str(name)): self.redact(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact(item) for item in value]
        return self._redact_text(str(value))

    def _redact_text(self, text: str) -> str:
        text = self._secrets.sub(REDACTED, text) if self._secrets else text
        return "\n".join(redact_urls(line[:_LONGEST_LINE]) for line in text[:_LONGEST_TEXT].split("\n"))


def redact_urls(text: str) -> str:
    """Return the text with its URLs reduced to scheme, host, port and path.

    >>> redact_urls("GET http://me:pw@a.org/cat.jpg?sig=1 and /list?cursor=2")
    'GET http://a.org/cat.jpg?[...] and /list?[...]'
    """
    if "://" in text:
        text = _URL.sub(_without_secrets, text)
    if "?" in text:
        text = _QUERY.sub(lambda match: f"{match[1] or ''}?{REDACTED}", text)
    if "%" in text:
        text = _ENCODED_URL.sub(REDACTED, text)
    if "@" in text:
        text = _LOGIN.sub(f"{REDACTED}@", text)
    if "match_" in text:
        text = _KEY.sub(REDACTED, text)
    return _CREDENTIAL.sub(rf"\1 {REDACTED}", text) if " " in text else text


def secrets_of(settings: Settings) -> list[str]:
    """Return the secrets of the settings in each encoding that a text may contain; the longest first."""
    values = [getattr(settings, one.name) for one in fields(settings) if one.metadata["secret"]]
    hidden = [text for value in values for text in (value if isinstance(value, tuple) else (value,))]
    urls = [settings.redis_url, settings.uploads_url or "", *settings.elasticsearch_url.split(",")]
    logins = [match[1] for url in urls if (match := _USERINFO.match(url))]
    passwords = [login.partition(":")[2] for login in logins]
    # HTTP Basic authentication.
    encoded = [b64encode(unquote(login).encode()).decode() for login in logins]
    # Passwords of Sentinels.
    parameters = [value for url in urls for _, value in parse_qsl(url.partition("?")[2])]
    secrets = {text for text in [*hidden, *passwords, *encoded, *parameters] if isinstance(text, str)}
    secrets |= {unquote(text) for text in secrets}
    return sorted((text for text in secrets if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)


def _without_secrets(url: re.Match[str]) -> str:
    scheme, rest = url[1], url[2]
    kept = re.split(r"[?#]", rest, maxsplit=1)
    authority, slash, path = kept[0].partition("/")
    host_port = authority.rpartition("@")[2]
    # A password may contain the delimiters of a URL: the text before them is then part of the password.
    if not _HOST_PORT.fullmatch(host_port) or ("@" in rest and "@" not in authority):
        return f"{scheme}{REDACTED}"
    return f"{scheme}{host_port}{slash}{path}" + (f"?{REDACTED}" if len(kept) > 1 else "")
