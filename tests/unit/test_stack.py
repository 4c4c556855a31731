"""The stack of `make dev`: which of its programs are started again, and what it says."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.config import Settings
from common.startup import WRONG_SETTING
from dev.greeting import demo_command, reached_at
from dev.programs import CannotStart, Program, Running
from dev.stack import flower, local_settings
from support.waiting import wait_until

WITHIN_S = 20


@contextmanager
def started(code: str, logs: Path) -> Iterator[Running]:
    running = Running(Program("api", [sys.executable, "-c", code], {}), logs)
    yield running
    running.ask_to_stop()
    running.stop(within_s=WITHIN_S)


def look_until_started_again(running: Running) -> None:
    first = running.pid

    def is_another() -> bool:
        running.look()
        return running.pid != first

    wait_until(is_another, "it is started again")


def test_a_program_whose_first_start_finds_a_wrong_setting_ends_the_stack_with_its_last_line(tmp_path: Path) -> None:
    code = f"import sys; print('before'); print('match api: PORT must be'); sys.exit({WRONG_SETTING})"

    with started(code, tmp_path) as running, pytest.raises(CannotStart, match=r"^match api: PORT must be$"):
        look_until_started_again(running)


def test_a_program_that_ends_otherwise_is_started_again(tmp_path: Path) -> None:
    with started("raise SystemExit(1)", tmp_path) as running:
        look_until_started_again(running)


def test_a_program_that_began_well_is_started_again_even_over_a_wrong_setting(tmp_path: Path) -> None:
    code = f"import os, sys; seen = os.path.exists('{tmp_path}/seen'); open('{tmp_path}/seen', 'w').close(); "
    code += f"sys.exit({WRONG_SETTING} if seen else 1)"

    with started(code, tmp_path) as running:
        look_until_started_again(running)
        look_until_started_again(running)


@pytest.mark.parametrize(
    ("environ", "address", "command"),
    [
        ({}, "http://127.0.0.1:8888", "make demo"),
        ({"PORT": "28310"}, "http://127.0.0.1:28310", "PORT=28310 make demo"),
        ({"MATCH_API_KEYS_FILE": "/keys"}, "http://127.0.0.1:8888", "KEY=… make demo"),
        ({"MATCH_API_HOST": "0.0.0.0"}, "http://127.0.0.1:8888", "make demo"),  # noqa: S104 - not listened on
        ({"MATCH_API_HOST": "::1"}, "http://[::1]:8888", "MATCH_API_HOST=::1 make demo"),
    ],
)
def test_it_says_how_this_very_stack_is_tried(environ: dict[str, str], address: str, command: str) -> None:
    settings: Settings = local_settings(environ)

    assert (reached_at(settings), demo_command(settings)) == (address, command)


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
