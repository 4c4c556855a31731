"""`make dev` and `make demo`: what a new user meets first."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import requests

from api.new_key import table
from dev.asking import answers
from dev.ports import free_port
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 60


def run(module_or_file: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *module_or_file],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def port(stack: Any) -> str:
    return str(stack.url.rpartition(":")[2])


def children(pid: int) -> dict[int, str]:
    """Return the command lines of a process's children by their pids."""
    listing = subprocess.run(
        [which("ps") or "ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    return {int(row[0]): row[2] for row in rows if int(row[1]) == pid}


def test_the_demo_finds_the_changed_copy(stack: Any, tmp_path: Path) -> None:
    demo = run(["examples/demo.py"], {"PORT": port(stack), "MATCH_HOME": str(tmp_path)})

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "mirrored_rotated_90" in demo.stdout
    assert stack.ok("GET", "/count") == [len(list((ROOT / "examples" / "images").glob("*.jpg")))]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is taken, as the next one is."""
    with ExitStack() as opened:
        while True:
            first = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            port: int = first.getsockname()[1]
            # A connection of somebody's may have it, and that may end at any time.
            with suppress(OSError):
                opened.enter_context(socket.create_server(("127.0.0.1", port + 1)))
                break
        yield port


def test_a_port_that_is_taken_is_told_in_one_line_with_one_that_is_free(taken: int, tmp_path: Path) -> None:
    stopped = run(["-m", "dev.stack"], {"PORT": str(taken), "FLOWER_PORT": str(taken + 2), "MATCH_HOME": str(tmp_path)})

    told, _, suggestion = stopped.stderr.partition("; to use another: PORT=")
    assert (stopped.returncode, told) == (2, f"make dev: port {taken} is in use")
    suggested = int(suggestion.removesuffix(" make dev\n"))
    assert suggested not in {taken, taken + 1, taken + 2}
    with socket.create_server(("127.0.0.1", suggested)):
        pass


def test_the_api_listens_where_it_is_told_to_and_says_how_to_try_it(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(table("demo", ["read", "write"], "match_demo"))
    stack = start_stack(tmp_path, MATCH_API_HOST="127.0.0.2", MATCH_API_KEYS_FILE=str(keys), WORKER_COUNT="1")
    where = {"MATCH_API_HOST": "127.0.0.2", "PORT": port(stack), "MATCH_HOME": str(tmp_path)}

    keyless = run(["examples/demo.py"], where)
    demo = run(["examples/demo.py"], where | {"KEY": "match_demo"})

    assert not answers(f"http://127.0.0.1:{port(stack)}/ping", within_s=5)
    assert any(line.endswith(f": MATCH_API_HOST=127.0.0.2 PORT={port(stack)} KEY=… make demo\n") for line in stack.told)
    assert keyless.returncode == 1
    assert "KEY=… make demo" in keyless.stderr
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert 'curl -H "Authorization: Bearer $KEY" -F ' in demo.stdout
    assert "match_demo" not in demo.stdout


def test_keys_that_cannot_be_read_stop_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("[[keys")

    stopped = run(
        ["-m", "dev.stack"], {"MATCH_HOME": str(tmp_path), "MATCH_API_KEYS_FILE": str(tmp_path / "keys.toml")}
    )

    assert stopped.returncode == 2
    assert stopped.stderr.startswith(f"make dev: MATCH_API_KEYS_FILE {tmp_path / 'keys.toml'}: invalid TOML")
    assert stopped.stderr.count("\n") == 1


@pytest.mark.parametrize("home", ["/proc/x", "a-file", "a-file/below"])
def test_a_home_that_cannot_be_one_is_told_in_one_line(tmp_path: Path, home: str) -> None:
    (tmp_path / "a-file").touch()

    stopped = run(["-m", "dev.stack"], {"MATCH_HOME": str(tmp_path / home), "PORT": str(free_port())})

    assert stopped.returncode == 2
    assert stopped.stderr.startswith(f"make dev: MATCH_HOME {tmp_path / home} is not a usable folder: ")
    assert stopped.stderr.count("\n") == 1


def test_an_address_of_another_machine_is_told_in_one_line(tmp_path: Path) -> None:
    stopped = run(
        ["-m", "dev.stack"],
        {"MATCH_HOME": str(tmp_path), "MATCH_API_HOST": "192.0.2.1", "PORT": str(free_port())},
    )

    assert stopped.returncode == 2
    assert stopped.stderr.startswith("make dev: MATCH_API_HOST and PORT: cannot listen on 192.0.2.1, port ")
    assert stopped.stderr.count("\n") == 1


def test_a_home_that_is_in_use_is_told_in_one_line(stack: Any) -> None:
    second = run(["-m", "dev.stack"], {"MATCH_HOME": str(stack.home)})

    assert second.returncode == 2
    assert second.stderr.startswith(f"make dev: {stack.home} is in use by another stack")
    assert second.stderr.count("\n") == 1


@pytest.mark.parametrize(("name", "value"), [("PORT", "http"), ("FLOWER_PORT", "0"), ("MATCH_MAX_BACKLOG", "many")])
def test_a_wrong_setting_is_told_in_one_line_by_its_name(tmp_path: Path, name: str, value: str) -> None:
    stopped = run(["-m", "dev.stack"], {"MATCH_HOME": str(tmp_path), name: value})

    assert stopped.returncode == 2
    assert stopped.stderr.startswith(f"make dev: {name} must be")
    assert stopped.stderr.count("\n") == 1


@pytest.mark.parametrize("door", ["api", "workers"])
def test_each_door_tells_a_wrong_setting_in_one_line(door: str) -> None:
    stopped = run(["-m", door], {"MATCH_STORE_URL": "postgres://localhost"})

    assert stopped.returncode == 2
    assert "MATCH_STORE_URL must look like sqlite:///" in stopped.stderr
    assert stopped.stderr.count("\n") == 1


def test_a_worker_that_dies_is_started_again(stack: Any, photographs: dict[str, bytes]) -> None:
    before = {pid for pid, command in children(stack.process.pid).items() if "workers" in command}

    for pid in before:
        os.kill(pid, signal.SIGKILL)

    wait_until(lambda: len(workers(stack) - before) == len(before))
    stack.add("after", next(iter(photographs.values())))
    assert stack.ok("GET", "/count") == [1]


def test_scrape_targets_serve_metrics(stack: Any) -> None:
    files = sorted((stack.home / "prometheus").glob("*.json"))
    targets = [target for file in files for group in json.loads(file.read_text()) for target in group["targets"]]

    assert len(targets) == 1 + (os.cpu_count() or 1)
    for target in targets:
        assert "match_" in requests.get(f"http://{target}/metrics", timeout=WITHIN_S).text


def test_flower_answers(stack: Any) -> None:
    [flower] = [command for command in children(stack.process.pid).values() if "flower" in command]
    address = "http://127.0.0.1:" + flower.rpartition("--port=")[2].split()[0]

    wait_until(lambda: answers(f"{address}/healthcheck", within_s=5))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_nothing_is_left_running_when_it_stops(
    start_stack: Callable[..., Any], tmp_path: Path, how: signal.Signals
) -> None:
    stack = start_stack(tmp_path)
    pids = children(stack.process.pid)

    stack.process.send_signal(how)

    assert stack.process.wait(WITHIN_S) == 0
    assert len(pids) >= 4
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def workers(stack: Any) -> set[int]:
    return {pid for pid, command in children(stack.process.pid).items() if "workers" in command}
