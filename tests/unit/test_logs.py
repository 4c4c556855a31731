"""The log: one line per event, with its context and without secrets."""

import io
import json
import logging
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from opentelemetry.context import Context, attach
from opentelemetry.trace import get_current_span, use_span

from api.new_key import new_key
from common.config import Settings
from common.telemetry import logs
from common.telemetry.logs import bound, formatter
from common.telemetry.tracing import extract

SECRETS = Settings(
    redis_url="redis://:r3dis%2Fpass@redis.lan:6379/0",
    elasticsearch_url="https://elastic:el4stic-pass@one.lan:9200,https://elastic:el4stic-pass@two.lan:9200",
    elasticsearch_api_key="c2VjcmV0LWtleQ==",
    webhook_secret=("whsec_bWVoci1nZWhlaW0tYWxzLWFsbGVz",),
)


@pytest.fixture(autouse=True)
def no_bound_fields() -> None:
    """Remove fields and trace of earlier requests, whose replies were never closed."""
    structlog.contextvars.clear_contextvars()
    attach(Context())


@contextmanager
def written(settings: Settings) -> Iterator[tuple[logging.Logger, Callable[[], str]]]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter(settings))
    log = logging.getLogger("tests.logs")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    yield log, out.getvalue
    log.removeHandler(handler)
    log.propagate = True


def line_of(message: str, *args: object, settings: Settings = SECRETS, **options: Any) -> dict[str, Any]:
    with written(settings) as (log, text):
        log.warning(message, *args, **options)
        [line] = text().splitlines()
    fields: dict[str, Any] = json.loads(line)
    return fields


def text_of(message: str, *args: object, **options: Any) -> str:
    with written(Settings(log_format="text")) as (log, text):
        log.warning(message, *args, **options)
        return text()


def raised(message: str) -> RuntimeError:
    """Return an error that has a traceback."""
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(message)
    return caught.value


def test_a_line_is_one_json_object() -> None:
    line = line_of("%d records wait", 3)

    assert list(line) == ["time", "level", "logger", "message"]
    assert (line["level"], line["logger"], line["message"]) == ("warning", "tests.logs", "3 records wait")
    assert line["time"].endswith("Z")


def test_api_keys_are_redacted() -> None:
    key = new_key()

    line = line_of("a request for %s", f"/tasks/{key}")

    assert key not in json.dumps(line)


def test_basic_credentials_are_redacted() -> None:
    assert "ZWxhc3" not in line_of("it sent %s", b64encode(b"elastic:el4stic-pass").decode())["message"]


def test_sentinel_passwords_are_redacted() -> None:
    settings = Settings(redis_url="sentinel://one.lan/main?sentinel_password=s3ntinel-pass")

    assert "s3ntinel" not in line_of("it knows s3ntinel-pass", settings=settings)["message"]


def test_bound_fields_end_with_their_context() -> None:
    with bound(request_id="", task_id="t-1"):
        inside = line_of("inside")

    assert inside["task_id"] == "t-1"
    assert "request_id" not in inside
    assert "task_id" not in line_of("outside")


def test_line_has_the_id_of_the_current_trace() -> None:
    context = extract("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with use_span(get_current_span(context)):
        inside = line_of("inside")

    assert inside["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "trace_id" not in line_of("outside")


def test_bound_fields_belong_to_one_thread() -> None:
    lines: list[dict[str, Any]] = []

    with bound(task_id="t-1"):
        other = threading.Thread(target=lambda: lines.append(line_of("elsewhere")))
        other.start()
        other.join()

    assert "task_id" not in lines[0]


def test_only_fields_that_are_documented_are_written() -> None:
    line = line_of("GET /ping", extra={"status": 200, "data": {"args": "everything"}})

    assert line["status"] == 200
    assert "data" not in line


def test_secrets_of_the_settings_are_redacted() -> None:
    line = line_of("got %s", {"auth": "r3dis%2Fpass r3dis/pass", "key": "c2VjcmV0LWtleQ==", "es": "el4stic-pass"})
    webhooks = line_of("signed by whsec_bWVoci1nZWhlaW0tYWxzLWFsbGVz")

    assert line["message"] == "got {'auth': '[...] [...]', 'key': '[...]', 'es': '[...]'}"
    assert webhooks["message"] == "signed by [...]"


def test_a_traceback_is_written_without_secrets() -> None:
    error = raised("no such key c2VjcmV0LWtleQ== at https://a.org/x?sig=geheim")

    line = line_of("it broke", exc_info=error)

    assert line["exception"].startswith("Traceback")
    assert "RuntimeError: no such key [...] at https://a.org/x?[...]" in line["exception"]


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x1b[2K", "\x85", "\u2028", "\x00"])
def test_no_message_can_forge_a_line(end: str) -> None:
    forged = f'a{end}{{"level": "info", "message": "all is well"}}'

    as_json = line_of("%s", forged)
    as_text = text_of("%s", forged, extra={"path": forged})

    assert as_json["message"] == forged
    assert len(as_text.splitlines()) == 1
    assert "\x1b" not in as_text


def test_as_text_a_traceback_is_indented_under_its_line() -> None:
    error = raised("one\n2026-01-01 all is well\rtwo")

    first, *below = text_of("it broke", exc_info=error).splitlines()

    assert first.endswith("warning tests.logs it broke")
    assert all(line.startswith("    ") for line in below)
    assert below[-2:] == ["    RuntimeError: one", "    2026-01-01 all is well\\rtwo"]


def test_a_formatting_error_shows_no_arguments() -> None:
    class Odd:
        def __str__(self) -> str:
            raise KeyError("geheim")

    line = line_of("%s", Odd())

    assert "cannot be written: KeyError" in line["message"]
    assert "geheim" not in json.dumps(line)


def test_long_messages_are_cut_before_redaction() -> None:
    assert len(line_of("@%s", ":" * 1_000_000)["message"]) < 3000


def test_uncaught_exceptions_are_logged_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    error = raised("at redis://:geheim@host/0")

    logs.configure(Settings())
    sys.excepthook(RuntimeError, error, error.__traceback__)

    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)

    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "critical"
    assert "geheim" not in line["exception"]
