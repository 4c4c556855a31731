"""The API's description: valid, complete, and shown on a page that needs nothing else."""

import base64
import hashlib
import hmac
import json
import re
import tomllib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from api.description.codes import CODES, MEANING, TASK_CODES
from api.description.examples import EXAMPLES, FAILURES
from api.description.openapi import VERSION, document
from api.description.page import POLICY, page, prose
from api.envelope import CODE_OF, STATUS_OF
from api.forms.parameters import FILEPATH_BYTES, METADATA_BYTES, METADATA_STRING_BYTES
from api.routes import ENDPOINTS, SUBJECTS
from common.config import Settings
from common.errors import FetchError, ImageError, StoreError
from common.images.formats import SUPPORTED_FORMATS
from common.net.webhook_signing import signed_headers
from common.queue.callbacks import Delivery, Ended
from workers.webhooks import body_of

ROOT = Path(__file__).resolve().parents[2]
# Of errors that never reach a client.
WORKED_BY = {"pipeline.py", "fetch.py", "connector.py", "addresses.py", "watchdog.py", "formats.py", "decode.py"}
OURS = {"error", "wrong_setting", "queue_error"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(document(SUBJECTS, Settings(max_wait_s=70, all_orientations=False))))
    return found


def operations(described: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in described["paths"].values() for operation in path.values()]


def test_the_document_is_valid_openapi(described: dict[str, Any]) -> None:
    validate(described)


def test_every_endpoint_is_described_by_each_of_its_methods(described: dict[str, Any]) -> None:
    found = {(path, method) for path, methods in described["paths"].items() for method in methods}

    assert found == {
        (re.sub("<(.*?)>", r"{\1}", endpoint.path), method.lower())
        for endpoint in ENDPOINTS
        for method in endpoint.methods
    }


def test_operations_have_names_of_their_own(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(described)]

    assert len(names) == len(set(names))


def test_bounds_and_defaults_that_are_settings_have_their_values(described: dict[str, Any]) -> None:
    def body(path: str) -> Any:
        return described["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]

    assert body("/add")["wait"]["maximum"] == 70
    assert body("/search")["all_orientations"] == body("/search")["all_orientations"] | {"default": False}


def test_files_come_by_multipart_alone(described: dict[str, Any]) -> None:
    content = described["paths"]["/search"]["post"]["requestBody"]["content"]

    assert "image" in content["multipart/form-data"]["schema"]["properties"]
    assert "image" not in content["application/x-www-form-urlencoded"]["schema"]["properties"]


def bodies(described: dict[str, Any]) -> list[dict[str, Any]]:
    media = [one for each in operations(described) for one in each.get("requestBody", {}).get("content", {}).values()]
    return [one["schema"] for one in media]


def test_every_parameter_has_a_meaning(described: dict[str, Any]) -> None:
    parameters = [one for operation in operations(described) for one in operation.get("parameters", [])]
    fields = [(name, one) for body in bodies(described) for name, one in body["properties"].items()]
    numbered = [(name, one) for body in bodies(described) for name, one in body.get("patternProperties", {}).items()]

    assert [one["name"] for one in parameters if not one.get("description")] == []
    assert [name for name, one in (*fields, *numbered) if not one.get("description")] == []
    assert parameters
    assert fields
    assert numbered


def test_everything_that_a_reply_or_a_callback_holds_has_a_meaning(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]
    fields = [
        (name, field, one) for name, model in models.items() for field, one in model.get("properties", {}).items()
    ]

    untold = [f"{name}.{field}" for name, field, one in fields if not one.get("description") and name != "Failure"]

    assert untold == []
    assert len(fields) > 40


def test_formats_and_limits_of_pictures_and_names_are_told(described: dict[str, Any]) -> None:
    settings = Settings()
    limits = (
        FILEPATH_BYTES,
        METADATA_BYTES,
        METADATA_STRING_BYTES,
        settings.max_image_bytes,
        settings.max_image_pixels,
    )

    told = described["info"]["description"]

    assert [limit for limit in limits if f"{limit:,}" not in told] == []
    assert SUPPORTED_FORMATS in told


def call_of(described: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = described["webhooks"]["tasks.ended"]["post"]
    return found


def test_a_callback_is_what_its_description_says(described: dict[str, Any]) -> None:
    fields = {"state": "failed", "filepath": "a.jpg", "seq": "1", "accepted": "1", "code": "timeout", "error": "slow"}
    ends = [Ended(task_id="a" * 32, at=2, fields=fields)]
    [media] = call_of(described)["requestBody"]["content"].values()

    sent = json.loads(body_of(Delivery(url="https://hooks.example.org/", id="msg_1", attempt=1, ends=ends)))

    Draft202012Validator({**media["schema"], "components": described["components"]}).validate(sent)
    assert sent.keys() == media["example"].keys()
    assert sent["tasks"][0].keys() == media["example"]["tasks"][0].keys()
    headers = signed_headers(["whsec_"], id_="msg_1", timestamp=1, body=b"")
    assert [one["name"] for one in call_of(described)["parameters"]] == [*headers]


def test_the_call_on_the_page_is_signed_as_the_page_says(described: dict[str, Any]) -> None:
    call = re.search(r"signed by the secret <code>(.*?)</code>.*?<code>(.*?)</code>", page(described), re.DOTALL)
    assert call is not None
    head, _, body = unescape(call[2]).partition("\n\n")
    headers = dict(line.split(": ") for line in head.splitlines())

    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    digest = hmac.digest(base64.b64decode(call[1].removeprefix("whsec_")), signed, "sha256")

    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_what_headers_bring_is_declared(described: dict[str, Any]) -> None:
    headers = [one["name"] for one in described["paths"]["/add"]["post"]["parameters"] if one["in"] == "header"]

    assert sorted(headers) == ["Idempotency-Key", "Prefer"]


def test_every_operation_may_be_refused_when_there_is_too_much_to_do(described: dict[str, Any]) -> None:
    assert all("503" in operation["responses"] for operation in operations(described))


def test_every_example_fits_its_schema(described: dict[str, Any]) -> None:
    media = [
        media
        for operation in operations(described)
        for holder in (operation.get("requestBody", {}), *operation["responses"].values())
        for media in holder.get("content", {}).values()
    ] + [response["content"]["application/json"] for response in described["components"]["responses"].values()]

    shown = [(one["schema"], example["value"]) for one in media for example in one.get("examples", {}).values()]

    assert len(shown) > 40
    for schema, value in shown:
        whole = {**schema, "components": described["components"]}
        for one in [json.loads(line) for line in value.splitlines()] if isinstance(value, str) else [value]:
            Draft202012Validator(whole).validate(one)


def test_every_endpoint_has_an_example() -> None:
    assert {endpoint.name for endpoint in ENDPOINTS} == EXAMPLES.keys()


def test_every_failure_is_described_with_its_meaning_and_an_example(described: dict[str, Any]) -> None:
    statuses = {status for _, status in STATUS_OF} | CODE_OF.keys() | {409, 500}

    assert statuses <= CODES.keys() == MEANING.keys()
    assert {f"{status}" for status in CODES} == described["components"]["responses"].keys()
    assert {failure.status for failure in FAILURES} == CODES.keys()
    assert all(failure.code in CODES[failure.status] for failure in FAILURES)


def test_every_code_that_the_service_gives_is_described() -> None:
    text = "\n".join(
        path.read_text()
        for folder in ("api", "workers", "common")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name not in {"codes.py", "examples.py"}
    )
    given = {*re.findall(r'\bcode ?= ?"([a-z_]+)"', text), *re.findall(r'_failed\(\s*"([a-z_]+)"', text)}

    assert len(given) > 30
    assert given - OURS <= {code for codes in CODES.values() for code in codes}


def test_failed_tasks_can_be_asked_for_by_every_code_that_a_worker_writes(described: dict[str, Any]) -> None:
    """Those of pictures and downloads are in the modules of these, the others in the pipeline and the error tree."""
    files = [*(ROOT / "common").rglob("*.py"), ROOT / "workers" / "pipeline.py"]
    text = "\n".join(path.read_text() for path in sorted(files) if path.name in WORKED_BY)
    written = {
        *re.findall(r'\b(?:code|INTERNAL_ERROR) ?= ?"([a-z_]+)"', text),
        *re.findall(r'_failed\(\s*"([a-z_]+)"', text),
        *(kind.code for kind in (ImageError, FetchError, StoreError)),
    }
    [state] = [one for one in described["paths"]["/tasks"]["get"]["parameters"] if one["name"] == "code"]

    assert {"timeout", "image_ends_worker", "upload_lost", "internal_error", "store_error", "closed"} <= written
    assert written <= {*TASK_CODES}
    assert state["schema"]["enum"] == [*TASK_CODES]


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.style = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in {"meta", "link"}:
            self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        self.links |= {value or "" for name, value in attrs if name in {"href", "src"}}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style" and not self.style:
            self.style = data


@pytest.fixture(scope="module")
def read(described: dict[str, Any]) -> Tags:
    tags = Tags()
    tags.feed(page(described))
    return tags


def test_the_page_shows_every_operation_and_failure(read: Tags, described: dict[str, Any]) -> None:
    assert {operation["operationId"] for operation in operations(described)} <= read.ids
    assert {f"failure-{status}" for status in CODES} <= read.ids


def test_the_page_closes_whatever_it_opens(read: Tags) -> None:
    assert {"section", "table", "nav"} <= read.seen
    assert read.open == []


def test_the_page_needs_no_script_and_nothing_from_elsewhere(read: Tags) -> None:
    assert not read.seen & {"script", "img", "iframe", "form", "object"}
    assert not {name for name in read.attributes if name == "style" or name.startswith("on")}
    assert all(link in {"openapi.json", "data:,"} or link[1:] in read.ids for link in read.links)


def test_the_page_keeps_to_its_policy(read: Tags) -> None:
    digest = base64.b64encode(hashlib.sha256(read.style.encode()).digest()).decode()

    assert f"style-src 'sha256-{digest}'" in POLICY
    assert "default-src 'none'" in POLICY


def test_the_page_shows_names_as_code_and_numbers_with_all_their_digits(described: dict[str, Any]) -> None:
    shown = page(described)

    assert "with <code>wait</code>, answer when they are." in shown
    assert "`" not in shown
    assert "integer from 0 to 9007199254740992" in shown


def test_text_is_shown_as_it_is() -> None:
    assert (
        prose("## g\n\na <b> `c & d`\n\n- `e`: f")
        == "<h3>g</h3>\n<p>a &lt;b&gt; <code>c &amp; d</code></p>\n<ul><li><code>e</code>: f</li></ul>"
    )
