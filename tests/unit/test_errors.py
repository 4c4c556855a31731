"""The table of errors: complete, without unused codes, and the source of replies, proxy and docs."""

import json
import re
from pathlib import Path

import pytest

from api.description.openapi import document
from api.envelope import FRAMEWORK_CODES
from api.errors import BY_STATUS, ERRORS, TASK_CODES, status_of
from api.routes import SUBJECTS
from common.config import Settings
from common.decoding.process import ProcessEnd
from common.errors import FetchError, ImageError, InputError, MatchError, QueueError, StoreError
from common.net import fetch, status
from common.queue.tasks import RetryRejected
from common.warning_codes import WARNINGS

ROOT = Path(__file__).resolve().parents[2]
# Codes of errors that stop a start, or that replies contain as `internal_error`.
INTERNAL = {"error", "wrong_setting", "queue_error"}
# Modules whose errors end a task.
TASK_MODULES = {
    "pipeline.py",
    "fetch.py",
    "connector.py",
    "addresses.py",
    "watchdog.py",
    "formats.py",
    "decode.py",
    "body.py",
}
RAISED = re.compile(r'\b(?:code|INTERNAL_ERROR) ?= ?"([a-z_]+)"|(?:_failed|fail)\(\s*"([a-z_]+)"')
PROXY_REPLY = re.compile(r"return (\d+) '(\{.*\})';")


def codes_in(*paths: Path) -> set[str]:
    """Return the codes that these modules raise or reply with."""
    return {code for path in paths for groups in RAISED.findall(path.read_text()) for code in groups if code}


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "examples.py"]


def proxy_replies() -> list[tuple[int, dict[str, str]]]:
    text = (ROOT / "proxy" / "nginx.conf").read_text().replace("$match_method", "")
    return [(int(status), json.loads(body)) for status, body in PROXY_REPLY.findall(text)]


def test_every_code_is_declared_and_used() -> None:
    used = codes_in(*modules("api", "workers", "common")) | {*RetryRejected} | {*FRAMEWORK_CODES.values()}
    used |= {end.value for end in ProcessEnd}
    used |= {reply["code"] for _, reply in proxy_replies()} | {*status.CODES.values()}
    used |= {status.SERVER_ERROR, status.OTHER_STATUS, fetch.READ_FAILED, fetch.TIMEOUT}

    assert used - INTERNAL == ERRORS.keys()


def test_codes_that_fail_tasks_are_task_codes() -> None:
    raised = codes_in(*(path for path in modules("common", "workers") if path.name in TASK_MODULES))
    raised |= {kind.code for kind in (ImageError, FetchError, StoreError)} | {end.value for end in ProcessEnd}

    assert len(raised) > 25
    assert raised <= {*TASK_CODES}


def test_errors_of_a_url_have_a_status_for_parameters() -> None:
    codes = codes_in(ROOT / "common" / "net" / "addresses.py")

    assert len(codes) >= 4
    assert codes <= {spec.code for spec in BY_STATUS[400]}


def test_failed_tasks_can_be_listed_by_every_task_code() -> None:
    [code] = [
        parameter
        for parameter in document(SUBJECTS, Settings())["paths"]["/tasks"]["get"]["parameters"]
        if parameter["name"] == "code"
    ]

    assert code["schema"]["enum"] == [*TASK_CODES]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("x", field="callback_url", code="private_address"), 400),
        (FetchError("x", code="private_address"), 422),
        (InputError("x", field="image", code="too_large"), 413),
        (ImageError("x", code="too_large"), 422),
        (FetchError("x", code="not in the table"), 422),
        (QueueError("x"), 500),
        (StoreError("x"), 500),
        (MatchError("x"), 500),
    ],
)
def test_status_depends_on_code_and_kind(error: MatchError, status: int) -> None:
    assert status_of(error) == status


def test_docs_list_every_warning() -> None:
    text = (ROOT / "docs" / "api.md").read_text()

    assert all(f"| `{code}` | {warning} |" in text for code, warning in WARNINGS.items())


def test_docs_list_every_error() -> None:
    rows = [f"| {status} | `{spec.code}` | {spec.text} |" for status, specs in BY_STATUS.items() for spec in specs]

    text = (ROOT / "docs" / "api.md").read_text()

    assert "\n".join(rows) in text
