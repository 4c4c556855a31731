"""Fixtures of the fuzz targets: the run of a target, its counts, and the API under test."""

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from redis import Redis

from api.errors import BY_STATUS
from common.config import Settings
from common.errors import FetchError
from common.net.addresses import Target, read_url
from common.net.fetch import Fetcher

LONG = os.environ.get("MATCH_FUZZ") == "long"
SEED = int(os.environ.get("MATCH_FUZZ_SEED") or (random.SystemRandom().randrange(2**32) if LONG else 1))
# Parallel processes use the same seed.
os.environ["MATCH_FUZZ_SEED"] = f"{SEED}"
COUNTED = "fuzz"

Check = Callable[[Any], None]


@pytest.fixture
def fuzz(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Return a function that runs a check on `short` inputs, or on `long` with MATCH_FUZZ=long, and counts them."""

    def run(inputs: st.SearchStrategy[Any], check: Check, *, short: int, long: int) -> None:
        tried, crashes, began = 0, 0, monotonic()

        @seed(SEED)
        @settings(
            max_examples=long if LONG else short,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        @given(inputs)
        def one(value: Any) -> None:
            nonlocal tried
            tried += 1
            try:
                check(value)
            except Exception as error:
                error.add_note(f"with {value!r}")
                raise

        try:
            one()
        except BaseExceptionGroup as group:
            crashes = len(group.exceptions)
            raise
        except BaseException:
            crashes = 1
            raise
        finally:
            target = request.function.__name__.removeprefix("test_").replace("_", " ")
            record_property(COUNTED, [target, tried, crashes, monotonic() - began])

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the counts of a long run."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, ())]
    rows = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == COUNTED]
    if LONG and rows:
        for line in table(rows):
            terminalreporter.write_line(line)


def table(rows: Sequence[tuple[str, int, int, float]]) -> Iterator[str]:
    yield f"\nseed {SEED}\n\n| target | inputs | crashes | seconds |\n|---|---|---|---|"
    for target, tried, crashes, seconds in rows:
        yield f"| {target} | {tried:,} | {crashes} | {seconds:.0f} |"
    tried, crashes, seconds = (sum(row[column] for row in rows) for column in (1, 2, 3))
    yield f"| **all** | {tried:,} | {crashes} | {seconds:.0f} |"


class NoFetcher:
    """Validates URLs as the fetcher does, and fails each download."""

    def __init__(self) -> None:
        self._fetcher = Fetcher(max_bytes=1000, timeout_s=1)

    def validate(self, url: str) -> Target:
        return self._fetcher.validate(url)

    def fetch(self, url: str) -> bytes:
        raise FetchError(f"{read_url(url).host} cannot be connected to", code="connect_failed")

    def close(self) -> None:
        self._fetcher.close()


@pytest.fixture
def client_of(make_client: Callable[..., FlaskClient], real_redis: Redis) -> Iterator[Callable[..., FlaskClient]]:
    """Return a function that creates a client of an API without limits, waits and downloads."""
    fetcher = NoFetcher()
    settings = Settings(max_image_bytes=100_000, max_wait_s=0.01)

    def make(**options: Any) -> FlaskClient:
        client = make_client(real_redis, max_open=10**9, fetcher=fetcher, settings=settings, **options)
        # A server closes each reply. Without this, the objects of open requests accumulate.
        client.open = partial(client.open, buffered=True)
        return client

    yield make
    fetcher.close()


@pytest.fixture
def client(client_of: Callable[..., FlaskClient]) -> FlaskClient:
    return client_of()


@pytest.fixture
def sound() -> Callable[[Any], dict[str, Any]]:
    """Return a function that checks a reply against the documented envelope and returns its body."""

    def check(reply: Any) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(reply.data)
        failed = reply.status_code >= 400
        assert reply.mimetype == "application/json"
        assert reply.headers["X-Request-ID"]
        assert {"status", "error", "method", "result"} <= body.keys()
        assert (body["status"] == "fail") == failed
        assert all(isinstance(text, str) for text in body["error"])
        assert bool(body["error"]) or body["status"] == "ok"
        if failed:
            assert reply.status_code != 500
            assert body["code"] in {spec.code for spec in BY_STATUS[reply.status_code]}
        return body

    return check
