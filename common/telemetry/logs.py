"""The log: one line an event, in one form for our own lines and those of every library, with no secret in it.

Everything logs by the standard library; whatever a line says passes a `Redactor` before it is written. What a thread
works on is told by `bound`: each line of the thread carries it until the end of the `with`.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from opentelemetry import trace
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict

from common.config import Settings
from common.telemetry.redaction import Redactor, secrets_of

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
STDERR = 2
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
    redactor = Redactor(secrets_of(settings))

    def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {name: redactor.redact(value) for name, value in event.items()}

    return _Formatter(
        foreign_pre_chain=[
            ExtraAdder(allow=FIELDS),
            structlog.contextvars.merge_contextvars,
            _with_trace,
        ],
        processors=[
            _with_origin,
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
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


def _with_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add the id of the thread's current trace."""
    span = trace.get_current_span().get_span_context()
    return {**event, "trace_id": trace.format_trace_id(span.trace_id)} if span.is_valid else event


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
