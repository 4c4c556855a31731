"""The stack of `make dev`: restarts, messages and metrics."""

import io
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from api.__main__ import heartbeats_folder
from common.config import Settings
from common.startup import WRONG_SETTING
from dev.greeting import demo_command, local_address
from dev.programs import CannotStart, Program, Running, say, stop_all
from dev.scrape_targets import WORKER_METRICS_PORT, worker_ports, write_targets
from dev.stack import check_space, flower, keep_private, local_settings, programs
from support.waiting import wait_until

WITHIN_S = 20
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def started(code: str, logs: Path, *, tries: int | None = None) -> Iterator[Running]:
    running = Running(Program("api", [sys.executable, "-c", code], {}), logs, tries=tries)
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


def test_program_that_never_starts_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "api.log").write_text("of an earlier run\n")

    with started("print('no memory'); raise SystemExit(255)", tmp_path, tries=2) as running:
        look_until_restarted(running)
        with pytest.raises(CannotStart, match=r"^api exited with status 255: no memory \(the 2 starts"):
            look_until_restarted(running)

    assert capsys.readouterr().out == f"api exited with status 255: no memory (see {tmp_path / 'api.log'})\n"


def test_output_without_an_ellipsis_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    monkeypatch.setattr("sys.stdout", ascii_only)

    say("stopping …")

    assert ascii_only.buffer.getvalue() == b"stopping ?\n"  # type: ignore[attr-defined]  # it is the BytesIO


def test_all_programs_stop_although_one_fails_to(tmp_path: Path) -> None:
    logs, sleeping = tmp_path / "logs", "import time; time.sleep(60)"
    logs.mkdir()
    running = [Running(Program(f"{n}", [sys.executable, "-c", sleeping], {}), logs) for n in range(3)]
    stop = running[1].stop

    def fail(*, within_s: float) -> None:
        stop(within_s=within_s)
        raise OSError("the log is full")

    running[1].stop = fail  # type: ignore[method-assign]  # one process whose end cannot be reported

    with pytest.raises(OSError, match="full"):
        stop_all(running)

    assert [program._process.poll() is None for program in running] == [False] * 3


def test_full_disk_is_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / "space").symlink_to("/dev/full")

    with pytest.raises(CannotStart, match=f"the disk of MATCH_HOME {tmp_path} is full: No space left on device"):
        check_space(tmp_path)


def test_files_of_earlier_versions_become_private(tmp_path: Path) -> None:
    modes = {"logs": 0o755, "match.db": 0o644, "match.db-segments": 0o755}
    for name, mode in modes.items():
        (tmp_path / name).mkdir() if mode == 0o755 else (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    umask = os.umask(0o022)

    keep_private(tmp_path)

    os.umask(umask)
    assert {name: (tmp_path / name).stat().st_mode & 0o777 for name in modes} == {
        "logs": 0o700,
        "match.db": 0o600,
        "match.db-segments": 0o700,
    }


def test_unwritable_shared_memory_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.__main__.SHARED_MEMORY", Path("/proc/self"))

    assert heartbeats_folder() is None


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
