"""Headers for browsers: the restrictive ones of every reply, and CORS."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from common.config import Settings

ALLOWED = "https://app.example.org"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
def shared(make_client: Callable[..., FlaskClient], real_redis: Redis) -> FlaskClient:
    """The API with CORS for pages of two origins."""
    return make_client(real_redis, settings=Settings(cors_origins=(ALLOWED, "http://localhost:3000")))


@pytest.mark.parametrize("path", ["/ping", "/count", "/nowhere", "/add", "/docs", "/openapi.json", "/metrics", "//"])
def test_every_reply_has_restrictive_browser_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= {*headers["Content-Security-Policy"].split("; ")}
    assert not [name for name in headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118 - pairs otherwise


def test_only_the_reference_page_may_run_scripts(client: FlaskClient) -> None:
    policy = client.get("/docs").headers["Content-Security-Policy"]

    assert {"script-src 'self'", "style-src 'self'"} <= {*policy.split("; ")}
    assert "unsafe" not in policy
    assert "script-src" not in client.get("/ping").headers["Content-Security-Policy"]


def test_allowed_origin_may_send_and_read(shared: FlaskClient) -> None:
    preflight = shared.options("/add", headers={"Origin": ALLOWED, **PREFLIGHT})
    answer = shared.post("/add", headers={"Origin": ALLOWED})

    assert (preflight.status_code, preflight.data) == (204, b"")
    assert preflight.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert preflight.headers["Access-Control-Allow-Methods"] == "POST"
    assert {"Authorization", "Idempotency-Key", "X-Batch-ID", "X-Request-ID", "Content-Type"} <= {
        *preflight.headers["Access-Control-Allow-Headers"].split(", ")
    }
    assert answer.status_code == 400
    assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
    exposed = {*answer.headers["Access-Control-Expose-Headers"].split(", ")}
    assert {"Location", "Retry-After", "X-Batch-ID", "X-Request-ID"} <= exposed


def test_preflight_lists_all_methods_of_a_path(shared: FlaskClient) -> None:
    preflight = shared.options("/tasks/nobody", headers={"Origin": ALLOWED, **PREFLIGHT})

    assert preflight.headers["Access-Control-Allow-Methods"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example.org", "http://app.example.org", f"{ALLOWED}:444", f"{ALLOWED}.evil.org", "null", "*", ""],
)
def test_other_origins_get_no_cors_headers(shared: FlaskClient, origin: str) -> None:
    answers: list[Any] = [
        shared.options("/add", headers={"Origin": origin, **PREFLIGHT}),
        shared.get("/count", headers={"Origin": origin}),
    ]

    assert [answer.status_code for answer in answers] == [405, 403]
    assert not [name for answer in answers for name, _ in answer.headers if name.startswith("Access-Control")]


def test_replies_vary_by_origin(shared: FlaskClient, client: FlaskClient) -> None:
    assert shared.get("/ping").headers["Vary"] == "Origin"
    assert "Vary" not in client.get("/ping").headers


def test_credentials_are_not_allowed_cross_origin(shared: FlaskClient) -> None:
    preflight = shared.options("/add", headers={"Origin": ALLOWED, **PREFLIGHT})

    assert "Access-Control-Allow-Credentials" not in preflight.headers


def test_without_allowed_origins_preflight_is_refused(client: FlaskClient) -> None:
    assert client.options("/add", headers={"Origin": ALLOWED, **PREFLIGHT}).status_code == 405


def test_preflight_for_an_unknown_path_is_404(shared: FlaskClient) -> None:
    assert shared.options("/nowhere", headers={"Origin": ALLOWED, **PREFLIGHT}).status_code == 404
