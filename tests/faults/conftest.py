"""What every fault needs: a stage to happen on, and one table of what came of it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.config import Settings
from common.wiring import build_dependencies
from dev.redis_server import RedisServer
from support.http_servers import serving
from support.image_server import ImageServer
from support.service import Service
from support.stage import Stage

HEAD = ("scenario", "accepted", "stored", "failed", "lost", "repeated", "seconds")
# What a row says where it has a word for it: failed with a reason, worked on again, until all had ended.
NAMES = ("scenario", "accepted", "stored", "failed with reason", "lost", "repeated", "seconds to recover")


@pytest.fixture(scope="session")
def pictures() -> Iterator[ImageServer]:
    with serving(ImageServer()) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """The settings that name the store: a file, unless a module says otherwise."""
    return {"MATCH_STORE_URL": f"sqlite:///{tmp_path / 'match.db'}"}


@pytest.fixture
def limits() -> dict[str, str]:
    """Settings that make faults noticed within seconds, where the defaults allow minutes."""
    return {
        "MATCH_VISIBILITY_TIMEOUT_S": "7",
        # Long enough for pictures that do come, however busy the machine.
        "MATCH_FETCH_TIMEOUT_S": "5",
        "MATCH_DECODE_TIMEOUT_S": "1",
        "MATCH_STORE_HOLD_S": "0.5",
    }


@pytest.fixture
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test alone: it may die. Its parameter, where it has one, is how often it waits for the disk."""
    with RedisServer(tmp_path / "redis", appendfsync=getattr(request, "param", "everysec")) as server:
        yield server


@pytest.fixture
def stage(
    redis: RedisServer,
    place: dict[str, str],
    limits: dict[str, str],
    pictures: ImageServer,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[Stage]:
    if sys.platform != "linux":
        pytest.skip("the faults need Linux: /proc, and limits of other processes")
    logs = tmp_path / "logs"
    logs.mkdir()
    environment = place | {
        "REDIS_URL": redis.url,
        "MATCH_FETCH_ALLOW": pictures.url.removeprefix("http://"),
        "MATCH_API_HOST": "127.0.0.1",
        "WORKER_COUNT": "1",
        "MATCH_API_THREADS": "16",
        "MATCH_WORKER_THREADS": "16",
    }
    environment |= limits
    # The test itself is patient.
    parts = build_dependencies(Settings.from_env(environment | {"MATCH_ELASTICSEARCH_TIMEOUT_S": "60"}))
    parts.store.prepare()
    with Service(logs, environment) as service:
        yield Stage(environment, redis, pictures, service, parts, record_property)
    parts.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the one table."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    rows = [value for report in reports for name, value in report.user_properties if name == "fault"]
    if not rows:
        return
    cells = [NAMES, *([str(row[name]) for name in HEAD] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(NAMES))]
    terminalreporter.section("what became of accepted pictures")
    for first, *rest in cells:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        terminalreporter.write_line(" | ".join([first.ljust(widths[0]), *numbers]))
