"""The service against its own description: valid requests are answered as described, others are refused."""

import base64
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from api.routes import ENDPOINTS
from support.openapi_bodies import MEDIA_TYPES, MULTIPART, has_body, in_media_type

IMAGES = ("chelsea.jpg", "coffee.jpg", "rocket.jpg")
# The host of the images in the description's examples, which are also among the cases.
EXAMPLES_AT = "https://images.example.org"
# Requests of an operation: `make fuzz` sends more.
EACH = 60 if os.environ.get("MATCH_FUZZ") == "long" else 20
# gunicorn refuses longer ones itself.
URL_LENGTH = 8000
# An operation without a body has all cases in the first document, each other one its share of them in each.
OPERATIONS = [
    (endpoint.path.replace("<", "{").replace(">", "}"), method, media_type, mode)
    for endpoint in ENDPOINTS
    for method in endpoint.methods
    for media_type in (MEDIA_TYPES if has_body(endpoint, method) else MEDIA_TYPES[:1])
    for mode in GenerationMode
    # A request without parameters, or with any text, cannot be invalid.
    if mode.is_positive or endpoint.line or any(kind.plain or kind.keyed for kind in endpoint.parameters)
]
# Endpoints whose parameters require or exclude each other, which a schema cannot express.
RULES_BESIDE = [("/delete", "DELETE"), ("/images", "GET"), ("/list", "GET"), ("/list", "POST"), ("/tasks", "GET")]
RULES_BESIDE += [("/images", "PATCH")]
# A form or query has text where a schema has null or a list. A wrong line of a batch has an outcome of its own.
TEXT_OR_LINES = [
    ("/delete", "DELETE"),
    ("/images", "GET"),
    ("/search", "POST"),
    *((one.path, "POST") for one in ENDPOINTS if one.line),
]
TEXT_OR_LINES += [(path, method) for path in ("/count", "/list") for method in ("GET", "POST")]
LEFT_OUT = {(*one, GenerationMode.POSITIVE): [positive_data_acceptance] for one in RULES_BESIDE}
LEFT_OUT |= {(*one, GenerationMode.NEGATIVE): [negative_data_rejection] for one in TEXT_OR_LINES}
# A negative case may be a valid one without its optional body.
LEFT_OUT["/delete", "DELETE", GenerationMode.NEGATIVE].append(positive_data_acceptance)


@pytest.fixture(scope="module")
def schemas(
    start_stack: Callable[..., Any],
    photographs: dict[str, bytes],
    image_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The description of a service of this module, by the media type of bodies; generated requests use real images."""
    stack = start_stack(
        tmp_path_factory.mktemp("schema"),
        MATCH_FETCH_ALLOW=image_server.removeprefix("http://"),
        MATCH_WEBHOOK_SECRET=f"whsec_{base64.b64encode(bytes(32)).decode()}",
    )
    schemathesis.openapi.media_type("image/jpeg", st.sampled_from([photographs[name] for name in IMAGES]))
    schemathesis.openapi.format("uri", st.sampled_from([f"{image_server}/{name}" for name in IMAGES]))
    schemathesis.openapi.format("filepath", st.sampled_from([*IMAGES, "dir/ä 猫.jpg"]))
    schemathesis.openapi.format("json-object", st.sampled_from(['{"a": [1, null]}', "{}"]))
    schemathesis.openapi.format("cursor", st.just(""))
    schemathesis.serializer("application/x-ndjson")(as_line)
    for name in IMAGES:
        stack.add(name, photographs[name], metadata=json.dumps({"name": name}))
    described = requests.get(f"{stack.url}/openapi.json", timeout=30).text
    assert EXAMPLES_AT in described
    document = json.loads(described.replace(EXAMPLES_AT, image_server))
    schemas = {
        media_type: schemathesis.openapi.from_dict(in_media_type(document, ENDPOINTS, media_type))
        for media_type in MEDIA_TYPES
    }
    for schema in schemas.values():
        schema.config.update(base_url=stack.url)
    return schemas


def as_line(_: Any, value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def url_of(case: Case) -> str:
    sent = case.as_transport_kwargs()
    return requests.Request("GET", sent["url"], params=sent.get("params")).prepare().url or ""


def is_sent(case: Case) -> bool:
    """Return whether the case's form reaches the service: an empty list has no fields."""
    return not isinstance(case.body, dict) or [] not in case.body.values()


def adds_several(case: Case) -> bool:
    """Return whether the case adds several images by their URLs, where each has an outcome of its own."""
    return isinstance(case.body, dict) and isinstance(case.body.get("urls"), list) and len(case.body["urls"]) > 1


def test_every_operation_matches_its_description(schemas: dict[str, Any], subtests: pytest.Subtests) -> None:
    statuses: list[int] = []

    for path, method, media_type, mode in OPERATIONS:
        operation = schemas[media_type][path][method]
        with subtests.test(f"{method} {path}, {media_type}, {mode.value}"):
            statuses += try_out(operation, mode, excluded=left_out(path, method, media_type, mode))

    assert len(statuses) >= 16 * EACH
    assert max(statuses) < 500


def left_out(path: str, method: str, media_type: str, mode: GenerationMode) -> list[Any]:
    """Return the checks that do not hold for the operation; a file of another type may be an image as well."""
    is_file = mode.is_negative and media_type == MULTIPART and path in {"/add", "/search", "/compare"}
    return LEFT_OUT.get((path, method, mode), []) + [negative_data_rejection] * is_file


def try_out(operation: Any, mode: GenerationMode, *, excluded: list[Any]) -> list[int]:
    """Send valid or invalid requests by the description, and return the statuses of the replies."""
    statuses = []
    each = EACH // len(MEDIA_TYPES) if operation.body else EACH

    @seed(1)
    @settings(max_examples=each, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def every_case(case: Case) -> None:
        assume(len(url_of(case)) < URL_LENGTH and is_sent(case))
        checks_left_out = excluded + [negative_data_rejection] * adds_several(case)
        statuses.append(case.call_and_validate(excluded_checks=checks_left_out).status_code)

    every_case()
    return statuses
