"""The stack of `make dev`: restarts, messages and metrics."""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from common.config import Settings
from common.startup import WRONG_SETTING
from dev.greeting import demo_command, local_address
from dev.programs import CannotStart, Program, Running
from dev.scrape_targets import WORKER_METRICS_PORT, worker_ports, write_targets
from dev.stack import flower, local_settings, programs
from support.waiting import wait_until

WITHIN_S = 20
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def started(code: str, logs: Path) -> Iterator[Running]:
    running = Running(Program("api", [sys.executable, "-c", code], {}), logs)
    yield running
    running.ask_to_stop()
    running.stop(within_s=WITHIN_S)


def look_until_restarted(running: Running) -> None:
    first = running.pid

    def is_another() -> bool:
        running.restart_if_exited()
        return running.pid != first

    wait_until(is_another, "the program is restarted")


def test_invalid_setting_at_first_start_stops_the_stack(tmp_path: Path) -> None:
    code = f"import sys; print('before'); print('match api: PORT must be'); sys.exit({WRONG_SETTING})"

    with started(code, tmp_path) as running, pytest.raises(CannotStart, match=r"^match api: PORT must be$"):
        look_until_restarted(running)


def test_program_that_exits_is_restarted(tmp_path: Path) -> None:
    with started("raise SystemExit(1)", tmp_path) as running:
        look_until_restarted(running)


def test_invalid_setting_after_first_start_is_retried(tmp_path: Path) -> None:
    code = f"import os, sys; seen = os.path.exists('{tmp_path}/seen'); open('{tmp_path}/seen', 'w').close(); "
    code += f"sys.exit({WRONG_SETTING} if seen else 1)"

    with started(code, tmp_path) as running:
        look_until_restarted(running)
        look_until_restarted(running)


@pytest.mark.parametrize(
    ("environ", "address", "command"),
    [
        ({}, "127.0.0.1:8888", "make demo"),
        ({"PORT": "28310"}, "127.0.0.1:28310", "PORT=28310 make demo"),
        ({"MATCH_API_KEYS_FILE": "/keys"}, "127.0.0.1:8888", "KEY=… make demo"),
        ({"MATCH_API_HOST": "0.0.0.0"}, "127.0.0.1:8888", "make demo"),  # noqa: S104 - not listened on
        ({"MATCH_API_HOST": "::1"}, "[::1]:8888", "MATCH_API_HOST=::1 make demo"),
    ],
)
def test_demo_command_fits_the_settings(environ: dict[str, str], address: str, command: str) -> None:
    settings: Settings = local_settings(environ)

    assert (local_address(settings), demo_command(settings)) == (address, command)


@pytest.mark.parametrize(
    ("redis_url", "broker_url"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://:secret@redis:6379/0", "rediss://:secret@redis:6379/0?ssl_cert_reqs=required"),
    ],
)
def test_flower_checks_the_certificate_of_a_redis_by_tls(redis_url: str, broker_url: str) -> None:
    settings = Settings.from_env({"REDIS_URL": redis_url})

    assert flower(settings, 5555).environment["CELERY_BROKER_URL"] == broker_url


def test_workers_get_distinct_free_metrics_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        first: int = used.getsockname()[1]
        taken = first + 1

        ports = worker_ports(first, 3, taken=[taken])

    assert len({*ports, first, taken}) == 5


def test_workers_serve_metrics_unless_port_is_zero() -> None:
    by_default, off = (local_settings(env).worker_metrics_port for env in ({}, {"MATCH_WORKER_METRICS_PORT": "0"}))

    assert (by_default, off) == (WORKER_METRICS_PORT, 0)
    assert worker_ports(off, 2, taken=[]) == [0, 0]


def test_each_worker_serves_metrics_on_its_port() -> None:
    _api, *workers = programs(local_settings({}), metrics_ports=[9500, 9502])

    assert [worker.environment["MATCH_WORKER_METRICS_PORT"] for worker in workers] == ["9500", "9502"]


def test_prometheus_reads_the_targets_of_make_dev(tmp_path: Path) -> None:
    config = tmp_path / "observability" / "prometheus" / "prometheus.yml"
    jobs = yaml.safe_load((ROOT / config.relative_to(tmp_path)).read_text())["scrape_configs"]
    home = tmp_path / local_settings({}).home
    home.mkdir()

    write_targets(home, api="127.0.0.1:8888", worker_ports=[9464, 9466, 0])

    files = {job["job_name"]: config.parent / job["file_sd_configs"][0]["files"][0] for job in jobs}
    targets = {name: json.loads(file.resolve().read_text()) for name, file in files.items()}
    assert targets == {
        "match": [{"targets": ["127.0.0.1:8888"]}],
        "match-worker": [{"targets": ["127.0.0.1:9464", "127.0.0.1:9466"]}],
    }
