"""Rate limits on a real Redis, and without one."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.access.keys import Keyring, Scope
from api.new_key import table
from api.rate_limits import RateLimiter
from common.config import Settings
from common.queue.keys import RATES
from common.redis.client import connect
from dev.redis_server import RedisServer

UNAVAILABLE_REDIS = "redis://127.0.0.1:1/0"
FREE = ("/ping", "/livez", "/readyz", "/metrics")


@pytest.fixture
def limited(
    make_client: Callable[..., FlaskClient], real_redis: Redis, redis_server: RedisServer
) -> Callable[..., FlaskClient]:
    def make(limits: str = "3/day", *, url: str = redis_server.url, **more: Any) -> FlaskClient:
        return make_client(real_redis, rate_limiter=RateLimiter(limits, connect(url, answer_within_s=0.25)), **more)

    return make


def statuses(client: FlaskClient, count: int, **options: Any) -> list[int]:
    return [client.get("/count", **options).status_code for _ in range(count)]


def test_requests_beyond_the_limit_get_retry_after(limited: Callable[..., FlaskClient]) -> None:
    client = limited("2/hour")

    first = statuses(client, 2)
    answer = client.get("/count")

    assert first == [200, 200]
    assert (answer.status_code, answer.json["code"]) == (429, "too_many_requests")
    assert answer.json["error"] == ["too many requests: at most 2 per 1 hour"]
    assert 0 < int(answer.headers["Retry-After"]) <= 2 * 3600


def test_a_limit_holds_over_all_processes_and_endpoints(limited: Callable[..., FlaskClient]) -> None:
    one, other = limited(), limited()

    results = [*statuses(one, 2), other.get("/list").status_code, one.post("/search").status_code]

    assert results == [200, 200, 200, 429]


def test_of_several_limits_each_holds(limited: Callable[..., FlaskClient]) -> None:
    assert statuses(limited("100/hour;3/day"), 4) == [200, 200, 200, 429]


def test_every_address_has_its_own_count(limited: Callable[..., FlaskClient]) -> None:
    client = limited("1/day")

    results = {
        address: statuses(client, 1, environ_overrides={"REMOTE_ADDR": address})[0]
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1")
    }

    # The owner of an IPv6 address usually owns its whole /64 network.
    assert [address for address, status in results.items() if status == 429] == ["2001:db8:0:1::2"]


@pytest.mark.parametrize(
    "forms",
    [
        ["192.0.2.1", "192.0.2.1:50000", "192.0.2.1:50001", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:443"],
        ["2001:db8:0:1::1", "[2001:db8:0:1::1]", "[2001:db8:0:1::2]:50000"],
    ],
)
def test_every_form_of_an_address_counts_as_one(limited: Callable[..., FlaskClient], forms: list[str]) -> None:
    client = limited("1/day", settings=Settings(trusted_proxies=1))

    results = [client.get("/count", headers={"X-Forwarded-For": form}).status_code for form in forms]
    other = client.get("/count", headers={"X-Forwarded-For": "192.0.2.2:50000"}).status_code

    assert results == [200] + [429] * (len(forms) - 1)
    assert other == 200


def test_paths_of_no_endpoint_are_counted(limited: Callable[..., FlaskClient]) -> None:
    client = limited("3/day")

    assert [client.get(path).status_code for path in ("/a", "/b", "/count", "/c")] == [404, 404, 200, 429]


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [(0, [200, 429, 429]), (1, [200, 200, 200]), (2, [200, 429, 429])],
    ids=["none is trusted", "one", "two"],
)
def test_only_trusted_proxies_set_the_client_address(
    limited: Callable[..., FlaskClient], proxies: int, expected: list[int]
) -> None:
    client = limited("1/day", settings=Settings(trusted_proxies=proxies))

    results = [
        client.get("/count", headers={"X-Forwarded-For": f"192.0.2.9, 192.0.2.{number}"}).status_code
        for number in (1, 2, 3)
    ]

    assert results == expected


def test_each_key_has_its_own_count_across_addresses(limited: Callable[..., FlaskClient], tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(table("one", [Scope.READ], "first") + table("two", [Scope.READ], "second"))
    client = limited("1/day", keyring=Keyring(file))

    results = [
        statuses(client, 1, headers={"Authorization": f"Bearer {key}"}, environ_overrides={"REMOTE_ADDR": address})[0]
        for key, address in [("first", "192.0.2.1"), ("second", "192.0.2.1"), ("first", "192.0.2.2")]
    ]

    assert results == [200, 200, 429]


def test_guesses_at_keys_are_counted_by_address(limited: Callable[..., FlaskClient], tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(table("one", [Scope.READ], "first"))
    client = limited(keyring=Keyring(file))

    results = [statuses(client, 1, headers={"Authorization": f"Bearer {number}"})[0] for number in range(4)]

    assert results == [401, 401, 401, 429]


@pytest.mark.parametrize("path", FREE)
def test_health_endpoints_are_never_limited(limited: Callable[..., FlaskClient], path: str) -> None:
    client = limited("1/day")

    assert [client.get(path).status_code for _ in range(3)] == [200, 200, 200]


def test_without_redis_each_process_counts_for_itself(
    limited: Callable[..., FlaskClient],
) -> None:
    one, other = limited(url=UNAVAILABLE_REDIS), limited(url=UNAVAILABLE_REDIS)

    assert statuses(one, 4) == [200, 200, 200, 429]
    assert statuses(other, 3) == [200, 200, 200]


def test_full_redis_refuses_no_request(limited: Callable[..., FlaskClient], real_redis: Redis) -> None:
    real_redis.config_set("maxmemory", 1)
    try:
        results = statuses(limited(), 3)
    finally:
        real_redis.config_set("maxmemory", 0)

    assert results == [200, 200, 200]


def test_counts_expire(limited: Callable[..., FlaskClient], real_redis: Redis) -> None:
    statuses(limited("5/minute"), 1)

    keys = list(real_redis.scan_iter(f"{RATES}*"))

    assert keys
    assert all(0 < real_redis.ttl(key) <= 120 for key in keys)


def test_replies_have_the_quota_that_is_left(limited: Callable[..., FlaskClient]) -> None:
    client = limited("100/hour;3/day")

    answers = [client.get("/count") for _ in range(4)]

    assert [answer.headers["RateLimit-Policy"] for answer in answers] == ['"hour";q=100;w=3600, "day";q=3;w=86400'] * 4
    fields = [re.sub(r"t=[1-9][0-9]*", "t=N", answer.headers["RateLimit"]) for answer in answers]
    assert fields[:3] == [f'"hour";r={99 - n};t=N, "day";r={2 - n};t=N' for n in range(3)]
    assert '"day";r=0;t=N' in fields[3]
    assert f"t={answers[3].headers['Retry-After']}" in answers[3].headers["RateLimit"]


def test_free_requests_have_no_quota(limited: Callable[..., FlaskClient]) -> None:
    assert "RateLimit" not in limited().get("/ping").headers


def test_without_redis_replies_have_the_quota_of_the_process(limited: Callable[..., FlaskClient]) -> None:
    answer = limited(url=UNAVAILABLE_REDIS).get("/count")

    assert answer.headers["RateLimit-Policy"] == '"day";q=3;w=86400'
    assert answer.headers["RateLimit"].startswith('"day";r=2;t=')
