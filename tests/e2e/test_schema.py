"""The service against its own description: what fits it is answered as it says, and what does not is refused."""

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

PICTURES = ("chelsea.jpg", "coffee.jpg", "rocket.jpg")
# Where the examples of the description have their pictures; some of the cases are such examples.
EXAMPLES_AT = "https://images.example.org"
EACH = 60
# gunicorn answers longer ones itself.
URL_LENGTH = 8000
OPERATIONS = [
    (endpoint.path.replace("<id>", "{id}"), method, mode)
    for endpoint in ENDPOINTS
    for method in endpoint.methods
    for mode in GenerationMode
    # Nothing can be wrong with what takes nothing, or any text.
    if mode.is_positive or endpoint.line or any(kind.plain or kind.keyed for kind in endpoint.parameters)
]
# What a parameter of the query needs, or cannot stand beside, no schema says.
RULES_BESIDE = [("/delete", "DELETE"), ("/list", "GET"), ("/list", "POST"), ("/tasks", "GET")]
# What is null or a list in a schema's eyes is text in a form or query; a wrong line is told in its own outcome.
TEXT_OR_LINES = [("/delete", "DELETE"), ("/add/batch", "POST"), ("/search", "POST")]
TEXT_OR_LINES += [(path, method) for path in ("/count", "/list") for method in ("GET", "POST")]
LEFT_OUT = {(*one, GenerationMode.POSITIVE): [positive_data_acceptance] for one in RULES_BESIDE}
LEFT_OUT |= {(*one, GenerationMode.NEGATIVE): [negative_data_rejection] for one in TEXT_OR_LINES}


@pytest.fixture(scope="module")
def schema(
    start_stack: Callable[..., Any],
    photographs: dict[str, bytes],
    picture_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """The description of a service of its own; real pictures are where it, or an example of its, asks for one."""
    stack = start_stack(
        tmp_path_factory.mktemp("schema"),
        MATCH_FETCH_ALLOW=picture_server.removeprefix("http://"),
        MATCH_WEBHOOK_SECRET=f"whsec_{base64.b64encode(bytes(32)).decode()}",
    )
    schemathesis.openapi.media_type("image/jpeg", st.sampled_from([photographs[name] for name in PICTURES]))
    schemathesis.openapi.format("uri", st.sampled_from([f"{picture_server}/{name}" for name in PICTURES]))
    schemathesis.openapi.format("filepath", st.sampled_from([*PICTURES, "dir/ä 猫.jpg"]))
    schemathesis.openapi.format("json-object", st.sampled_from(['{"a": [1, null]}', "{}"]))
    schemathesis.openapi.format("cursor", st.just(""))
    schemathesis.serializer("application/x-ndjson")(as_line)
    for name in PICTURES:
        stack.add(name, photographs[name], metadata=json.dumps({"name": name}))
    described = requests.get(f"{stack.url}/openapi.json", timeout=30).text
    assert EXAMPLES_AT in described
    schema = schemathesis.openapi.from_dict(json.loads(described.replace(EXAMPLES_AT, picture_server)))
    schema.config.update(base_url=stack.url)
    return schema


def as_line(_: Any, value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def url_of(case: Case) -> str:
    sent = case.as_transport_kwargs()
    return requests.Request("GET", sent["url"], params=sent.get("params")).prepare().url or ""


def is_sent(case: Case) -> bool:
    """Say whether what the case has in its form reaches the service: an empty list there is nothing at all."""
    return not isinstance(case.body, dict) or [] not in case.body.values()


def is_broken(case: Case) -> bool:
    """Say whether a case has what it is said to break: a rule for numbered names breaks nothing where there is none."""
    data = case.meta.phase.data if case.meta else None
    _, _, pattern = (getattr(data, "location", None) or "").partition("/patternProperties/")
    return not pattern or any(re.search(pattern, name) for name in case.body)


@pytest.mark.timeout(300)
def test_every_operation_keeps_to_its_description(schema: Any, subtests: pytest.Subtests) -> None:
    statuses: list[int] = []

    for path, method, mode in OPERATIONS:
        with subtests.test(f"{method} {path}, {mode.value}"):
            statuses += try_out(schema[path][method], mode, left_out=LEFT_OUT.get((path, method, mode), []))

    assert len(statuses) >= 1000
    assert max(statuses) < 500


def try_out(operation: Any, mode: GenerationMode, *, left_out: list[Any]) -> list[int]:
    """Send requests that fit the description, or do not, and return the statuses of the replies."""
    statuses = []

    @seed(1)
    @settings(max_examples=EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def every_case(case: Case) -> None:
        assume(len(url_of(case)) < URL_LENGTH and is_sent(case) and is_broken(case))
        statuses.append(case.call_and_validate(excluded_checks=left_out).status_code)

    every_case()
    return statuses
