"""The log: one line an event, in one form for our own lines and those of every library, with no secret in it.

Everything logs by the standard library; whatever a line says passes the `_Scrubber` before it is written. What a
thread works on is told by `bound`: each line of the thread carries it until the end of the `with`.
"""

import logging
import os
import re
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict

from common.config import Settings

# What a line may hold beside its time, level, logger and message: by `extra`, or of what the thread works on.
FIELDS = {
    "request_id": "the request, as in its reply's `X-Request-ID`; of a task's lines the one that brought it",
    "task_id": "the task, as in `/tasks/<id>`",
    "trace_id": "the trace, where traces are collected",
    "method": "a request's method",
    "path": "a request's path, without its query",
    "endpoint": "the endpoint that answered",
    "status": "a reply's HTTP status",
    "duration_ms": "how long a request took, to the last byte of its reply",
    "bytes": "how long a reply's body was",
    "key": "the name of the API key that a request came with",
    "outcome": "how a task ended",
    "code": "why a task failed, as in its `error`",
    "exception": "the traceback of a fault",
}
# One line a picture is too many; failures have lines of ours.
_TALKATIVE = ("celery.app.trace", "celery.worker.strategy", "elastic_transport.transport")
# Shorter ones would blacken ordinary words.
_SHORTEST_SECRET = 5
HIDDEN = "[...]"
STDERR = 2
# Of one line of a text, and of a text: looking for secrets takes the square of a hostile line's length.
_LONGEST_LINE = 2_000
_LONGEST_TEXT = 32_000

# Up to the next space, whatever is in it: what a URL holds may be chosen by whoever wants to be read.
_URL = re.compile(r"\b([a-z][a-z0-9+.-]*://)(\S*)", re.IGNORECASE)
_PLACE = re.compile(r"(\[[0-9a-f:.%]+\]|[^:@\[\]]*)(:\d*)?\W*", re.IGNORECASE)
_ENCODED_URL = re.compile(r"\S*%3a%2f%2f\S*", re.IGNORECASE)
_LOGIN = re.compile(r"[^\s/@:'\"]*:[^\s/@]+@(?=[\w\[])")
_QUERY = re.compile(r"(/[^\s?]*)\?\S+|(?<=[^\s?])\?[^\s?]*=\S*")
# Our own keys, wherever somebody put one by mistake.
_KEY = re.compile(r"\bmatch_[\w-]{43}(?![\w-])")
_CREDENTIAL = re.compile(r"\b(bearer|basic|apikey) +[\w.~+/=-]{12,}", re.IGNORECASE)
# Control characters, and what some readers take for the end of a line.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(settings: Settings) -> None:
    """Let all loggers of this process write to stderr, in the form and from the level on that the settings name."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    if settings.log_level != "debug":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    # Python's own way out would print what it likes.
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda told: _log_uncaught(told.exc_type, told.exc_value, told.exc_traceback)


def formatter(settings: Settings) -> logging.Formatter:
    """Return what makes a line of a record."""
    scrub = _Scrubber(_secrets(settings))
    return _Formatter(
        foreign_pre_chain=[
            ExtraAdder(allow=FIELDS),
            structlog.contextvars.merge_contextvars,
        ],
        processors=[
            _with_origin,
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            scrub,
            _text if settings.log_format == "text" else structlog.processors.JSONRenderer(),
        ],
    )


def say(logger: str, message: str) -> None:
    """Write a line from inside a signal's handler, where a stream's or a logger's lock may be held already."""
    [handler, *_] = logging.getLogger().handlers
    record = logging.makeLogRecord({"name": logger, "msg": message, "levelno": logging.INFO, "levelname": "INFO"})
    with suppress(OSError):
        os.write(STDERR, f"{handler.format(record)}\n".encode())


@contextmanager
def bound(**known: str) -> Iterator[None]:
    """Put these fields into each line that this thread logs inside the `with`; empty ones are left out."""
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in known.items() if value}):
        yield


class _Formatter(ProcessorFormatter):
    """structlog's formatter, which never fails: Python would print the record as it is."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a record, the next ones are written
            told = {"msg": f"a line of {record.pathname}:{record.lineno} cannot be written: {type(error).__name__}"}
            return super().format(logging.makeLogRecord(vars(record) | told | {"args": (), "exc_info": None}))


def _with_origin(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Put time, level, logger and message first."""
    record: logging.LogRecord = event["_record"]
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    first = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": event.pop("event")}
    return {**first, **event}


class _Scrubber:
    """Takes secrets out of every text of a line."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        return {name: self._clean(value) for name, value in event.items()}

    def _clean(self, value: Any) -> Any:  # noqa: ANN401 - whatever somebody logs
        if isinstance(value, str):
            return self._clean_text(value)
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, Mapping):
            return {self._clean(str(name)): self._clean(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(one) for one in value]
        return self._clean_text(str(value))

    def _clean_text(self, text: str) -> str:
        text = self._secrets.sub(HIDDEN, text) if self._secrets else text
        return "\n".join(without_urls(line[:_LONGEST_LINE]) for line in text[:_LONGEST_TEXT].split("\n"))


def without_urls(text: str) -> str:
    """Return the text with its URLs cut down to what is no secret: scheme, host, port and path.

    >>> without_urls("GET http://me:pw@a.org/cat.jpg?sig=1 and /list?cursor=2")
    'GET http://a.org/cat.jpg?[...] and /list?[...]'
    """
    if "://" in text:
        text = _URL.sub(_shown, text)
    if "?" in text:
        text = _QUERY.sub(lambda found: f"{found[1] or ''}?{HIDDEN}", text)
    if "%" in text:
        text = _ENCODED_URL.sub(HIDDEN, text)
    if "@" in text:
        text = _LOGIN.sub(f"{HIDDEN}@", text)
    if "match_" in text:
        text = _KEY.sub(HIDDEN, text)
    return _CREDENTIAL.sub(rf"\1 {HIDDEN}", text) if " " in text else text


def _shown(url: re.Match[str]) -> str:
    scheme, rest = url[1], url[2]
    kept = re.split(r"[?#]", rest, maxsplit=1)
    place, slash, path = kept[0].partition("/")
    place = place.rpartition("@")[2]
    # No host and port: what was cut in the middle may be a password.
    if not _PLACE.fullmatch(place) or ("@" in rest and "@" not in kept[0].partition("/")[0]):
        return f"{scheme}{HIDDEN}"
    return f"{scheme}{place}{slash}{path}" + (f"?{HIDDEN}" if len(kept) > 1 else "")


def _secrets(settings: Settings) -> list[str]:
    """Return the secrets among the settings, the longest first."""
    values = [getattr(settings, one.name) for one in fields(settings) if not one.repr]
    hidden = [text for value in values for text in (value if isinstance(value, tuple) else (value,))]
    urls = [settings.redis_url, settings.uploads_url or "", *settings.elasticsearch_url.split(",")]
    logins = [urlsplit(url).netloc.rpartition("@")[0] for url in urls if "@" in urlsplit(url).netloc]
    passwords = [login.partition(":")[2] for login in logins]
    # As it travels in a header.
    encoded = [b64encode(unquote(login).encode()).decode() for login in logins]
    # A Sentinel's password.
    asked = [value for url in urls for _, value in parse_qsl(urlsplit(url).query)]
    found = {text for text in [*hidden, *passwords, *encoded, *asked] if isinstance(text, str)}
    found |= {unquote(text) for text in found}
    return sorted((text for text in found if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)


def _text(_logger: object, _method: str, event: EventDict) -> str:
    """Return a line for people; only a traceback has more, each of them indented."""
    traceback = event.pop("exception", None)
    time, level, logger, message, *more = (_in_line(f"{value}") for value in event.values())
    told = "".join(f" {name}={value}" for name, value in zip([*event][4:], more, strict=True))
    below = "" if traceback is None else "".join(f"\n    {_in_line(line)}" for line in traceback.split("\n"))
    return f"{time} {level:7} {logger} {message}{told}{below}"


def _in_line(text: str) -> str:
    """Return the text with no character that could end a line or move the cursor."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: Any) -> None:  # noqa: ANN401 - Python's own
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger(__name__).critical("nothing caught this", exc_info=(kind, error or kind(), traceback))
