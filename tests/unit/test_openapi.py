"""The API's description is valid and complete; the files of its page are the published ones."""

import base64
import hashlib
import hmac
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from api.description.code_samples import ORIGIN
from api.description.examples import EXAMPLES, FAILURES
from api.description.openapi import FOUR_KEYS, LINE_SCHEMA, document
from api.errors import BY_STATUS, SUMMARIES
from api.routes import ENDPOINTS, SUBJECTS
from common.config import Settings
from common.images.formats import SUPPORTED_FORMATS
from common.net.webhook_signing import signed_headers
from common.queue.callbacks import Delivery, EndedTask
from common.record_rules import FILEPATH_BYTES, METADATA_BYTES, METADATA_DIGITS, METADATA_STRING_BYTES
from common.version import VERSION
from workers.webhooks import body_of

ROOT = Path(__file__).resolve().parents[2]
SWAGGER_UI = ROOT / "api" / "description" / "page" / "swagger-ui"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    description: dict[str, Any] = json.loads(
        json.dumps(document(SUBJECTS, Settings(max_wait_s=70, all_orientations=False)))
    )
    return description


def operations(described: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in described["paths"].values() for operation in path.values()]


def test_the_document_is_valid_openapi(described: dict[str, Any]) -> None:
    validate(described)


def test_every_endpoint_is_described_by_each_of_its_methods(described: dict[str, Any]) -> None:
    methods_by_path = {(path, method) for path, methods in described["paths"].items() for method in methods}

    assert methods_by_path == {
        (re.sub("<(.*?)>", r"{\1}", endpoint.path), method.lower())
        for endpoint in ENDPOINTS
        for method in endpoint.methods
    }


def test_operations_have_names_of_their_own(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(described)]

    assert len(names) == len(set(names))


def test_bounds_and_defaults_that_are_settings_have_their_values(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]

    assert models["AddBody"]["properties"]["wait"]["maximum"] == 70
    assert models["SearchBody"]["properties"]["all_orientations"]["description"].endswith(" Default: false.")


def test_bodies_with_files_are_multipart_and_others_json(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]

    types = {
        media["schema"].get("$ref", "").rpartition("/")[2]: (media_type, operation["requestBody"])
        for operation in operations(described)
        for media_type, media in operation.get("requestBody", {}).get("content", {}).items()
    }

    add, delete = types["AddBody"], types["DeleteBody"]
    assert (add[0], add[1]["required"]) == ("multipart/form-data", True)
    assert "`application/json` with `callback_url`, `collection`, `filepath`, `metadata`" in add[1]["description"]
    assert models["AddBody"]["properties"]["image"] | {"description": ""} == {
        "type": "string",
        "format": "binary",
        "description": "",
    }
    assert models["AddBody"]["properties"]["images"]["maxItems"] == 100
    assert models["SearchBody"]["properties"]["filter"]["additionalProperties"] == {"type": "string"}
    assert (delete[0], delete[1]["required"]) == ("application/json", False)
    assert models["DeleteBody"]["properties"]["filepaths"]["maxItems"] == 1000
    assert models["RetryTasksBody"]["required"] == ["state"]


def bodies(described: dict[str, Any]) -> list[dict[str, Any]]:
    models = described["components"]["schemas"]
    return [model for name, model in models.items() if name.endswith(("Body", "Line"))]


def test_every_parameter_is_described(described: dict[str, Any]) -> None:
    parameters = [one for operation in operations(described) for one in operation.get("parameters", [])]
    fields = [(name, one) for body in bodies(described) for name, one in body["properties"].items()]

    assert [one["name"] for one in parameters if not one.get("description")] == []
    assert [name for name, one in fields if not one.get("description")] == []
    assert parameters
    assert len(fields) > 40


def test_every_field_of_replies_and_callbacks_is_described(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]
    fields = [
        (name, field, one)
        for name, model in models.items()
        for field, one in model.get("properties", {}).items()
        if field not in FOUR_KEYS or not name.endswith(("Reply", "Failure"))
    ]

    undescribed = [f"{name}.{field}" for name, field, one in fields if one.keys().isdisjoint({"description", "$ref"})]

    assert undescribed == []
    assert len(fields) > 40


def test_formats_and_limits_are_described(described: dict[str, Any]) -> None:
    settings = Settings()
    limits = (
        FILEPATH_BYTES,
        METADATA_BYTES,
        METADATA_STRING_BYTES,
        METADATA_DIGITS,
        settings.max_image_bytes,
        settings.max_image_pixels,
    )

    text = described["info"]["description"]

    assert [limit for limit in limits if f"{limit:,}" not in text] == []
    assert SUPPORTED_FORMATS in text


def call_of(described: dict[str, Any]) -> dict[str, Any]:
    callbacks = described["paths"]["/add"]["post"]["callbacks"]["tasks.ended"]
    operation: dict[str, Any] = callbacks["{$request.body#/callback_url}"]["post"]
    return operation


def test_a_callback_fits_its_description(described: dict[str, Any]) -> None:
    fields = {"state": "failed", "filepath": "a.jpg", "seq": "1", "accepted": "1", "code": "timeout", "error": "slow"}
    ends = [EndedTask(task_id="a" * 32, ended_at=2, fields=fields)]
    [media] = call_of(described)["requestBody"]["content"].values()

    sent = json.loads(body_of(Delivery(url="https://hooks.example.org/", id="msg_1", attempt=1, tasks=ends)))

    Draft202012Validator({**media["schema"], "components": described["components"]}).validate(sent)
    assert sent.keys() == media["example"].keys()
    assert sent["tasks"][0].keys() == media["example"]["tasks"][0].keys()
    headers = signed_headers(["whsec_"], id_="msg_1", timestamp=1, body=b"")
    assert [one["name"] for one in call_of(described)["parameters"]] == [*headers]


def test_example_of_a_callback_is_signed_by_its_secret(described: dict[str, Any]) -> None:
    example = re.search(r"with the secret `whsec_(.*?)` for the body `(.*)`", call_of(described)["description"])
    assert example is not None
    headers = {one["name"]: one["example"] for one in call_of(described)["parameters"]}

    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{example[2]}".encode()
    digest = hmac.digest(base64.b64decode(example[1]), signed, "sha256")

    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_request_headers_are_declared(described: dict[str, Any]) -> None:
    headers = [one["name"] for one in described["paths"]["/add"]["post"]["parameters"] if one["in"] == "header"]

    assert sorted(headers) == ["Idempotency-Key", "Prefer", "X-Batch-ID"]


def test_every_operation_may_reply_with_503(described: dict[str, Any]) -> None:
    assert all("503" in operation["responses"] for operation in operations(described))


def test_every_example_fits_its_schema(described: dict[str, Any]) -> None:
    media = [
        media
        for operation in operations(described)
        for holder in (operation.get("requestBody", {}), *operation["responses"].values())
        for media in holder.get("content", {}).values()
    ] + [response["content"]["application/json"] for response in described["components"]["responses"].values()]

    shown = [
        (one.get(LINE_SCHEMA, one["schema"]), example["value"])
        for one in media
        for example in one.get("examples", {}).values()
    ]

    assert len(shown) > 40
    for schema, value in shown:
        whole = {**schema, "components": described["components"]}
        for one in [json.loads(line) for line in value.splitlines()] if isinstance(value, str) else [value]:
            Draft202012Validator(whole).validate(one)


def test_every_endpoint_has_an_example() -> None:
    assert {endpoint.name for endpoint in ENDPOINTS} == EXAMPLES.keys()


def test_every_failure_has_its_codes_and_an_example(described: dict[str, Any]) -> None:
    responses = described["components"]["responses"]

    assert BY_STATUS.keys() == SUMMARIES.keys() == {failure.http_status for failure in FAILURES}
    assert {int(status) for status in responses} == BY_STATUS.keys()
    for status, specs in BY_STATUS.items():
        assert all(f"- `{spec.code}`: {spec.text}" in responses[f"{status}"]["description"] for spec in specs)


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION


def test_vendored_files_are_the_published_ones() -> None:
    lines = (SWAGGER_UI / "SHA256SUMS").read_text().splitlines()
    expected = {name: digest for digest, name in (line.split("  ") for line in lines)}

    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in SWAGGER_UI.iterdir()
        if path.name not in {"SHA256SUMS", "README.md"}
    }

    assert digests == expected
    assert {"LICENSE", "NOTICE", "swagger-ui-bundle.js"} <= digests.keys()


def test_page_replaces_the_address_of_code_samples() -> None:
    script = (SWAGGER_UI.parent / "page.js").read_text()

    assert f'const SAMPLE_ORIGIN = "{ORIGIN}";' in script
