"""The service against its own description: valid requests are answered as described, others are refused."""

import base64
import json
import re
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

IMAGES = ("chelsea.jpg", "coffee.jpg", "rocket.jpg")
# The host of the images in the description's examples, which are also among the cases.
EXAMPLES_AT = "https://images.example.org"
EACH = 60
# gunicorn refuses longer ones itself.
URL_LENGTH = 8000
OPERATIONS = [
    (endpoint.path.replace("<", "{").replace(">", "}"), method, mode)
    for endpoint in ENDPOINTS
    for method in endpoint.methods
    for mode in GenerationMode
    # A request without parameters, or with any text, cannot be invalid.
    if mode.is_positive or endpoint.line or any(kind.plain or kind.keyed for kind in endpoint.parameters)
]
# Endpoints whose parameters require or exclude each other, which a schema cannot express.
RULES_BESIDE = [("/delete", "DELETE"), ("/list", "GET"), ("/list", "POST"), ("/tasks", "GET")]
RULES_BESIDE += [("/images", "GET"), ("/images", "PATCH")]
# A form or query has text where a schema has null or a list. A wrong line of a batch has an outcome of its own.
TEXT_OR_LINES = [("/delete", "DELETE"), ("/add/batch", "POST"), ("/search", "POST")]
TEXT_OR_LINES += [("/images", "GET")]
TEXT_OR_LINES += [(path, method) for path in ("/count", "/list") for method in ("GET", "POST")]
LEFT_OUT = {(*one, GenerationMode.POSITIVE): [positive_data_acceptance] for one in RULES_BESIDE}
LEFT_OUT |= {(*one, GenerationMode.NEGATIVE): [negative_data_rejection] for one in TEXT_OR_LINES}
# A negative case may be a valid one without its optional body.
LEFT_OUT["/delete", "DELETE", GenerationMode.NEGATIVE].append(positive_data_acceptance)


@pytest.fixture(scope="module")
def schema(
    start_stack: Callable[..., Any],
    photographs: dict[str, bytes],
    image_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """The description of a service of this module; generated requests and its examples use real images."""
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
    schema = schemathesis.openapi.from_dict(json.loads(described.replace(EXAMPLES_AT, image_server)))
    schema.config.update(base_url=stack.url)
    return schema


def as_line(_: Any, value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def url_of(case: Case) -> str:
    sent = case.as_transport_kwargs()
    return requests.Request("GET", sent["url"], params=sent.get("params")).prepare().url or ""


def is_sent(case: Case) -> bool:
    """Return whether the case's form reaches the service: an empty list has no fields."""
    return not isinstance(case.body, dict) or [] not in case.body.values()


def is_broken(case: Case) -> bool:
    """Return whether a negative case is invalid: a rule for numbered names needs a field with a number.

    A wrong image of several has an outcome of its own, and costs the others nothing.
    """
    data = case.meta.phase.data if case.meta else None
    _, _, pattern = (getattr(data, "location", None) or "").partition("/patternProperties/")
    if pattern and case.path == "/add":
        return False
    return not pattern or any(re.search(pattern, name) for name in case.body)


@pytest.mark.timeout(300)
def test_every_operation_matches_its_description(schema: Any, subtests: pytest.Subtests) -> None:
    statuses: list[int] = []

    for path, method, mode in OPERATIONS:
        with subtests.test(f"{method} {path}, {mode.value}"):
            statuses += try_out(schema[path][method], mode, left_out=LEFT_OUT.get((path, method, mode), []))

    assert len(statuses) >= 1000
    assert max(statuses) < 500


def try_out(operation: Any, mode: GenerationMode, *, left_out: list[Any]) -> list[int]:
    """Send valid or invalid requests by the description, and return the statuses of the replies."""
    statuses = []

    @seed(1)
    @settings(max_examples=EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def every_case(case: Case) -> None:
        assume(len(url_of(case)) < URL_LENGTH and is_sent(case) and is_broken(case))
        statuses.append(case.call_and_validate(excluded_checks=left_out).status_code)

    every_case()
    return statuses
