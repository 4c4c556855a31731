"""A deployment to damage, and the table of outcomes at the end of the run."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.config import Settings
from common.wiring import build_dependencies
from dev.redis_server import RedisServer
from support.deployment import Deployment
from support.http_servers import serving
from support.image_server import ImageServer
from support.service import Service

# Key in a row, and heading.
COLUMNS = {
    "scenario": "scenario",
    "accepted": "accepted",
    "stored": "stored",
    "failed": "failed with reason",
    "lost": "lost",
    "repeated": "repeated",
    "seconds": "seconds to recover",
}


@pytest.fixture(scope="session")
def image_server() -> Iterator[ImageServer]:
    with serving(ImageServer()) as server:
        yield server


@pytest.fixture
def store_settings(tmp_path: Path) -> dict[str, str]:
    """The settings of the store; a module may override them."""
    return {"MATCH_STORE_URL": f"sqlite:///{tmp_path / 'match.db'}"}


@pytest.fixture
def timeouts() -> dict[str, str]:
    """Time-outs of seconds, where the defaults are minutes."""
    return {
        "MATCH_VISIBILITY_TIMEOUT_S": "10",
        # Long enough for every download on a busy machine.
        "MATCH_FETCH_TIMEOUT_S": "5",
        "MATCH_DECODE_TIMEOUT_S": "2",
        "MATCH_STORE_HOLD_S": "0.5",
    }


@pytest.fixture
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, which may kill it; an indirect parameter sets appendfsync."""
    with RedisServer(tmp_path / "redis", appendfsync=getattr(request, "param", "everysec")) as server:
        yield server


@pytest.fixture
def deployment(
    redis: RedisServer,
    store_settings: dict[str, str],
    timeouts: dict[str, str],
    image_server: ImageServer,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[Deployment]:
    if sys.platform != "linux":
        pytest.skip("the faults need Linux: /proc, and resource limits of other processes")
    logs = tmp_path / "logs"
    logs.mkdir()
    environment = store_settings | {
        "REDIS_URL": redis.url,
        "MATCH_FETCH_ALLOW": image_server.address,
        "MATCH_API_HOST": "127.0.0.1",
        "WORKER_COUNT": "1",
        "MATCH_API_THREADS": "16",
        "MATCH_WORKER_THREADS": "16",
    }
    environment |= timeouts
    # The test's own connections wait longer than the service.
    dependencies = build_dependencies(Settings.from_env(environment | {"MATCH_ELASTICSEARCH_TIMEOUT_S": "60"}))
    dependencies.store.prepare()
    with Service(logs, environment) as service:
        yield Deployment(environment, redis, image_server, service, dependencies, record_property)
    dependencies.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of outcomes."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    rows = [value for report in reports for name, value in report.user_properties if name == "fault"]
    if not rows:
        return
    cells = [[*COLUMNS.values()], *([str(row[key]) for key in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    terminalreporter.section("outcomes of accepted images")
    for first, *rest in cells:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        terminalreporter.write_line(" | ".join([first.ljust(widths[0]), *numbers]))
