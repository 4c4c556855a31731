"""The log: one line per event, in one format for our code and all libraries, with secrets redacted.

All code uses the standard library's loggers. A `Redactor` redacts every field of a line. `bound` adds fields to the
lines of the current thread until the end of the `with`.
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

# Fields of a line besides time, level, logger and message; they are set by `extra` or `bound`.
FIELDS = {
    "request_id": "id of the request, as in its reply's `X-Request-ID`; for a task, of the request that created it",
    "task_id": "id of the task, as in `/tasks/<id>`",
    "trace_id": "id of the trace, if traces are exported or the client sent a `traceparent`",
    "method": "method of the request",
    "path": "path of the request, without its query",
    "endpoint": "name of the endpoint",
    "status": "HTTP status of the reply",
    "duration_ms": "time from the request to the last byte of its reply",
    "bytes": "length of the reply's body",
    "key": "name of the API key of the request",
    "collection": "collection of the request or task",
    "outcome": "final state of the task",
    "code": "error code of the failed task, as in its `error`",
    "exception": "traceback of an unexpected error",
}
# These loggers write a line for each image; our code logs the failures.
_VERBOSE = ("celery.app.trace", "celery.worker.strategy", "elastic_transport.transport")
STDERR = 2
# Control characters, and Unicode's line separators.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(settings: Settings) -> None:
    """Make all loggers of this process write to stderr, with the format and the level of the settings."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    if settings.log_level != "debug":
        for name in _VERBOSE:
            logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    # Python would print tracebacks without redaction.
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def formatter(settings: Settings) -> logging.Formatter:
    """Return the formatter of log records."""
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


def write_from_signal_handler(logger: str, message: str) -> None:
    """Write a line without a lock: in a signal handler, the thread may hold the lock of the stream already."""
    [handler, *_] = logging.getLogger().handlers
    record = logging.makeLogRecord({"name": logger, "msg": message, "levelno": logging.INFO, "levelname": "INFO"})
    with suppress(OSError):
        os.write(STDERR, f"{handler.format(record)}\n".encode())


@contextmanager
def bound(**values: str) -> Iterator[None]:
    """Add these fields, unless they are empty, to each line that this thread logs inside the `with`."""
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in values.items() if value}):
        yield


class _Formatter(ProcessorFormatter):
    """structlog's formatter, but without exceptions: after one, Python would print the record without redaction."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - the log continues after any error
            replacement = {
                "msg": f"a line of {record.pathname}:{record.lineno} cannot be written: {type(error).__name__}",
                "args": (),
                "exc_info": None,
            }
            return super().format(logging.makeLogRecord(vars(record) | replacement))


def _with_origin(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add time, level, logger and message as the first fields."""
    record: logging.LogRecord = event["_record"]
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    first = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": event.pop("event")}
    return {**first, **event}


def _with_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add the id of the thread's current trace."""
    span = trace.get_current_span().get_span_context()
    return {**event, "trace_id": trace.format_trace_id(span.trace_id)} if span.is_valid else event


def _text(_logger: object, _method: str, event: EventDict) -> str:
    """Return the line for a terminal, followed by the indented lines of a traceback."""
    traceback = event.pop("exception", None)
    time, level, logger, message, *more = (_in_line(f"{value}") for value in event.values())
    fields = "".join(f" {name}={value}" for name, value in zip([*event][4:], more, strict=True))
    below = "" if traceback is None else "".join(f"\n    {_in_line(line)}" for line in traceback.split("\n"))
    return f"{time} {level:7} {logger} {message}{fields}{below}"


def _in_line(text: str) -> str:
    """Escape the characters that could end a line or move the cursor."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: Any) -> None:  # noqa: ANN401 - Python's own
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger(__name__).critical("uncaught exception", exc_info=(kind, error or kind(), traceback))
