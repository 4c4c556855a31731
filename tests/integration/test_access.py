"""API keys and their scopes at every endpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.access.keys import Keyring, Scope
from api.endpoints import Endpoint
from api.new_key import table
from api.routes import ENDPOINTS, SUBJECTS
from api.routes.docs import endpoints
from common.config import Settings

EVERY = (*ENDPOINTS, *endpoints(SUBJECTS, Settings()))
CALLS = [
    pytest.param(endpoint, method, id=f"{method} {endpoint.path}") for endpoint in EVERY for method in endpoint.methods
]
FORBIDDEN = {401, 403}


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path) -> FlaskClient:
    """The API with a key for each scope, named like it, and one key with all scopes."""
    file = tmp_path / "keys.toml"
    tables = [table(scope, [scope], f"the {scope} key") for scope in Scope]
    limited = table("shop", [*Scope], "the key to shop", ["shop"])
    file.write_text("".join([*tables, table("all", [*Scope], "the key to all"), limited]))
    return make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))


def send(client: FlaskClient, endpoint: Endpoint, method: str, key: str | None = None) -> Any:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return client.open(
        endpoint.path.replace("<id>", "nobody").replace("<name>", "nobody"), method=method, headers=headers
    )


@pytest.mark.parametrize(("endpoint", "method"), CALLS)
def test_without_a_key_only_public_endpoints_answer(client: FlaskClient, endpoint: Endpoint, method: str) -> None:
    answer = send(client, endpoint, method)

    assert (answer.status_code == 401) == (endpoint.scope is not None)
    if answer.status_code == 401:
        assert answer.json["code"] == "key_required"
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="match"'


@pytest.mark.parametrize(("endpoint", "method"), CALLS)
def test_each_scope_allows_its_own_endpoints_only(client: FlaskClient, endpoint: Endpoint, method: str) -> None:
    allowed = {
        scope for scope in Scope if send(client, endpoint, method, f"the {scope} key").status_code not in FORBIDDEN
    }

    assert allowed == ({*Scope} if endpoint.scope is None else {endpoint.scope})


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_keys_of_some_collections_pause_no_queue(client: FlaskClient, action: str) -> None:
    replies = [
        client.post(f"/queue/{action}", headers={"Authorization": f"Bearer {key}"})
        for key in ("the key to shop", "the key to all")
    ]

    assert [reply.status_code for reply in replies] == [403, 200]
    assert "some collections" in replies[0].json["error"][0]


def test_forbidden_reply_names_the_missing_scope(client: FlaskClient) -> None:
    answer = client.post("/add", headers={"Authorization": "Bearer the read key"})

    assert (answer.status_code, answer.json["code"]) == (403, "missing_scope")
    assert answer.json["error"] == ['API key "read" lacks the scope write']
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="match", error="insufficient_scope", scope="write"'


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer unknown",
        "Bearer ",
        "Bearer",
        "bearer",
        "the read key",
        "Basic dGhlIHJlYWQga2V5",
        "Basic \x80",
        "Bearer the read key, Bearer the read key",
        "Bearer \xe4",
    ],
)
def test_invalid_key_is_refused(client: FlaskClient, authorization: str) -> None:
    answer = client.get("/count", headers={"Authorization": authorization})

    assert answer.status_code == 401
    assert answer.json["code"] in {"unknown_key", "key_required"}
    assert "the read key" not in answer.text


@pytest.mark.parametrize("authorization", ["Basic dGhlIHJlYWQga2V5", "Token the read key", "match_abc"])
def test_another_scheme_is_refused_with_the_accepted_one(client: FlaskClient, authorization: str) -> None:
    answer = client.get("/count", headers={"Authorization": authorization})

    assert (answer.status_code, answer.json["code"]) == (401, "key_required")
    [error] = answer.json["error"]
    assert "must be Bearer" in error
    assert authorization.rsplit(maxsplit=1)[-1] not in error


@pytest.mark.parametrize(
    ("path", "authorization"),
    [("/count", "bEARER the read key"), ("/livez", "Bearer unknown")],
    ids=["case-insensitive", "public endpoint"],
)
def test_authorization_is_accepted(client: FlaskClient, path: str, authorization: str) -> None:
    assert client.get(path, headers={"Authorization": authorization}).status_code == 200


def test_unknown_path_names_the_description(client: FlaskClient) -> None:
    answer = client.get("/elsewhere")

    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert answer.json["error"] == ["not found: /elsewhere; the API is described at /docs"]


def test_key_in_the_query_is_not_accepted(client: FlaskClient) -> None:
    assert client.get("/count?key=the+read+key").status_code == 401


def test_without_keys_every_endpoint_is_public(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    answer = make_client(real_redis).get("/count", headers={"Authorization": "Bearer whatever"})

    assert answer.status_code == 200


def test_description_names_the_scope_of_each_endpoint(client: FlaskClient) -> None:
    described = client.get("/openapi.json").json

    assert described["paths"]["/add"]["post"]["security"] == [{"key": ["write"]}]
    assert described["paths"]["/livez"]["get"]["security"] == []
    assert {"401", "403", "429"} <= described["paths"]["/add"]["post"]["responses"].keys()
    assert not {"401", "403", "429"} & described["paths"]["/livez"]["get"]["responses"].keys()
    assert "scope `write`" in described["paths"]["/add"]["post"]["description"]


def test_without_keys_the_description_requires_none(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    described = make_client(real_redis).get("/openapi.json").json

    assert described["paths"]["/add"]["post"]["security"] == [{}, {"key": ["write"]}]
