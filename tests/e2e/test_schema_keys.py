"""The service with keys against its own description: each operation requires the key that it declares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from api.new_key import new_key, table
from api.routes import ENDPOINTS

# Each is sent three times: with the key, without a key, and with an unknown one.
EACH = 3
KEY = new_key()
# The lines of a batch need a serializer of their own; tests/integration has their keys.
OPERATIONS = [
    (endpoint.path.replace("<", "{").replace(">", "}"), method)
    for endpoint in ENDPOINTS
    for method in endpoint.methods
    if not endpoint.line
]


@pytest.fixture(scope="module")
def schema(start_stack: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("keys")
    (folder / "keys.toml").write_text(table("all", ["read", "write", "admin"], KEY))
    stack = start_stack(folder / "home", MATCH_API_KEYS_FILE=str(folder / "keys.toml"))
    return schemathesis.openapi.from_url(f"{stack.url}/openapi.json")


def test_every_operation_requires_the_key_that_it_declares(schema: Any, subtests: pytest.Subtests) -> None:
    statuses: list[int] = []

    for path, method in OPERATIONS:
        with subtests.test(f"{method} {path}"):
            statuses += try_out(schema[path][method])

    assert len(statuses) >= len(OPERATIONS)
    assert not {401, 403} & {*statuses}


def try_out(operation: Any) -> list[int]:
    """Send valid requests by the description; return the statuses of the replies to those with the key."""
    statuses = []

    @seed(1)
    @settings(max_examples=EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def every_case(case: Case) -> None:
        # test_schema checks that valid requests are accepted; the collection of this service is empty.
        answer = case.call_and_validate(
            headers={"Authorization": f"Bearer {KEY}"}, excluded_checks=[positive_data_acceptance]
        )
        statuses.append(answer.status_code)

    every_case()
    return statuses
