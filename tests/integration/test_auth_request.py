"""`/_authorize`, which a proxy requests before it reads the body of a request."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.access.keys import Keyring, Scope
from api.endpoints import Endpoint
from api.new_key import table
from api.rate_limits import RateLimiter
from api.routes import ENDPOINTS, SUBJECTS
from api.routes.docs import endpoints
from common.config import Settings

CALLS = [
    pytest.param(endpoint, method, id=f"{method} {endpoint.path}")
    for endpoint in (*ENDPOINTS, *endpoints(SUBJECTS, Settings()))
    for method in endpoint.methods
]


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    """A key for each scope, named like it."""
    file = tmp_path / "keys.toml"
    file.write_text("".join(table(scope, [scope], f"the {scope} key") for scope in Scope))
    return Keyring(file)


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], real_redis: Redis, keyring: Keyring) -> FlaskClient:
    return make_client(real_redis, keyring=keyring)


def authorize(client: FlaskClient, method: str, uri: str, *, key: str | None = None) -> Any:
    headers = {"X-Original-Method": method, "X-Original-URI": uri}
    return client.get("/_authorize", headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}))


@pytest.mark.parametrize(("endpoint", "method"), CALLS)
def test_authorize_allows_the_same_keys_as_the_endpoint(client: FlaskClient, endpoint: Endpoint, method: str) -> None:
    uri = endpoint.path.replace("<id>", "1")

    allowed = {scope for scope in Scope if authorize(client, method, uri, key=f"the {scope} key").status_code == 204}

    assert allowed == ({*Scope} if endpoint.scope is None else {endpoint.scope})
    assert authorize(client, method, uri).status_code == (204 if endpoint.scope is None else 401)


@pytest.mark.parametrize("uri", ["/count?filter[a]=b", "/co%75nt", "/count/", "/count?/livez"])
def test_authorize_reads_the_path_as_the_endpoints_do(client: FlaskClient, uri: str) -> None:
    assert authorize(client, "GET", uri).status_code == client.get(uri).status_code == 401


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        ("GET", "/nowhere"),
        ("PUT", "/add/batch"),
        ("OPTIONS", "/add"),
        ("GET", "//nowhere"),
        # For nginx these are /add/batch, with its limit of the body.
        ("POST", "/x/../add/batch"),
        ("POST", "/add/./batch"),
        ("POST", "/add/batch#x"),
        ("POST", "/add/batch%0A"),
    ],
)
def test_requests_without_an_endpoint_need_a_valid_key(client: FlaskClient, method: str, uri: str) -> None:
    keyless, keyed = authorize(client, method, uri), authorize(client, method, uri, key="the read key")

    assert (keyless.status_code, keyed.status_code) == (401, 204)
    assert json.loads(keyless.headers["X-Match-Reply"])["code"] == "key_required"


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("unknown", 401), ("the read key", 403)])
def test_rejection_carries_the_reply_of_the_endpoint(client: FlaskClient, key: str | None, status: int) -> None:
    own = client.post("/add", headers={"Authorization": f"Bearer {key}"} if key else {})

    rejection = authorize(client, "POST", "/add", key=key)

    assert rejection.status_code == own.status_code == status
    assert rejection.headers["WWW-Authenticate"] == own.headers["WWW-Authenticate"]
    assert json.loads(rejection.headers["X-Match-Reply"]) == own.json


@pytest.mark.parametrize("missing", ["X-Original-Method", "X-Original-URI"])
def test_authorize_without_the_original_request_is_an_error(client: FlaskClient, missing: str) -> None:
    headers = {"X-Original-Method": "GET", "X-Original-URI": "/count"}
    del headers[missing]

    answer = client.get("/_authorize", headers=headers)

    assert (answer.status_code, answer.json["field"]) == (400, missing)


def test_without_keys_authorize_allows_everything(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    assert authorize(make_client(real_redis), "POST", "/add").status_code == 204


def test_authorize_does_not_count_for_rate_limits(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    client = make_client(real_redis, rate_limiter=RateLimiter("1/hour", real_redis))

    assert [authorize(client, "POST", "/add").status_code for _ in range(3)] == [204] * 3


def test_only_denials_are_observed(
    make_client: Callable[..., FlaskClient], real_redis: Redis, keyring: Keyring
) -> None:
    client = make_client(real_redis, keyring=keyring)
    authorize(client, "POST", "/add", key="the write key").close()
    authorize(client, "POST", "/add").close()

    metrics = client.get("/metrics", headers={"Authorization": "Bearer the read key"}).text

    assert [line for line in metrics.splitlines() if line.startswith("match_http_requests_total")] == [
        'match_http_requests_total{endpoint="authorize",method="GET",status="401"} 1.0'
    ]
