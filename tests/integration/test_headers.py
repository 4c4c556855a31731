"""What replies tell browsers: to do as little as possible with them, and whom to let read them."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from common.config import Settings

OURS = "https://app.example.org"
ASKING = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
def shared(make_client: Callable[..., FlaskClient], real_redis: Redis) -> FlaskClient:
    """The API, for pages of one other origin."""
    return make_client(real_redis, settings=Settings(cors_origins=(OURS, "http://localhost:3000")))


@pytest.mark.parametrize("path", ["/ping", "/count", "/nowhere", "/add", "/docs", "/openapi.json", "/metrics", "//"])
def test_every_reply_tells_browsers_to_do_nothing_with_it(client: FlaskClient, path: str) -> None:
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


def test_a_page_of_a_named_origin_may_ask_and_read(shared: FlaskClient) -> None:
    asked = shared.options("/add", headers={"Origin": OURS, **ASKING})
    answer = shared.post("/add", headers={"Origin": OURS})

    assert (asked.status_code, asked.data) == (204, b"")
    assert asked.headers["Access-Control-Allow-Origin"] == OURS
    assert asked.headers["Access-Control-Allow-Methods"] == "POST"
    assert {"Authorization", "Idempotency-Key", "X-Request-ID", "Content-Type"} <= {
        *asked.headers["Access-Control-Allow-Headers"].split(", ")
    }
    assert answer.status_code == 400
    assert answer.headers["Access-Control-Allow-Origin"] == OURS
    assert {"Location", "Retry-After", "X-Request-ID"} <= {*answer.headers["Access-Control-Expose-Headers"].split(", ")}


def test_all_methods_of_a_path_are_told(shared: FlaskClient) -> None:
    asked = shared.options("/tasks/nobody", headers={"Origin": OURS, **ASKING})

    assert asked.headers["Access-Control-Allow-Methods"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example.org", "http://app.example.org", f"{OURS}:444", f"{OURS}.evil.org", "null", "*", ""],
)
def test_a_page_of_another_origin_may_nothing(shared: FlaskClient, origin: str) -> None:
    answers: list[Any] = [
        shared.options("/add", headers={"Origin": origin, **ASKING}),
        shared.get("/count", headers={"Origin": origin}),
    ]

    assert [answer.status_code for answer in answers] == [405, 200]
    assert not [name for answer in answers for name, _ in answer.headers if name.startswith("Access-Control")]


def test_caches_are_told_that_replies_differ_by_origin(shared: FlaskClient, client: FlaskClient) -> None:
    assert shared.get("/ping").headers["Vary"] == "Origin"
    assert "Vary" not in client.get("/ping").headers


def test_no_login_of_the_browsers_own_is_ever_sent(shared: FlaskClient) -> None:
    asked = shared.options("/add", headers={"Origin": OURS, **ASKING})

    assert "Access-Control-Allow-Credentials" not in asked.headers


def test_where_no_origin_is_named_a_page_may_not_ask(client: FlaskClient) -> None:
    assert client.options("/add", headers={"Origin": OURS, **ASKING}).status_code == 405


def test_what_is_not_there_is_told_to_a_page_that_asks(shared: FlaskClient) -> None:
    assert shared.options("/nowhere", headers={"Origin": OURS, **ASKING}).status_code == 404
