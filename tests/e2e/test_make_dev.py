"""`make dev` and `make demo`, the first commands of a new user."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import requests
from redis import Redis
from redis.exceptions import AuthenticationError

from api.new_key import table
from dev.asking import answers
from dev.ports import free_port
from support.commands import run_python
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 60


def failed_start(environment: Mapping[str, str], module: str = "dev.stack") -> str:
    """Start the module, which must report a setting in one line and exit with 2; return that line."""
    stopped = run_python("-m", module, environment=environment)
    assert (stopped.returncode, stopped.stderr.count("\n")) == (2, 1), stopped.stderr
    return stopped.stderr


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
    demo = run_python("examples/demo.py", environment={"PORT": port(stack), "MATCH_HOME": str(tmp_path)})

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "mirrored_rotated_90" in demo.stdout
    assert "examples/chelsea.jpg            local_features" in demo.stdout
    assert stack.ok("GET", "/count") == [len(list((ROOT / "examples" / "images").glob("*.jpg")))]


@pytest.fixture
def used_port() -> Iterator[int]:
    """A port in use; the next port is in use too."""
    with ExitStack() as opened:
        while True:
            first = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            port: int = first.getsockname()[1]
            # A connection of another process may have the next port.
            with suppress(OSError):
                opened.enter_context(socket.create_server(("127.0.0.1", port + 1)))
                break
        yield port


def test_port_in_use_is_reported_with_a_free_one(used_port: int, tmp_path: Path) -> None:
    line = failed_start({"PORT": str(used_port), "FLOWER_PORT": str(used_port + 2), "MATCH_HOME": str(tmp_path)})

    error, _, suggestion = line.partition("; to use another: PORT=")
    assert error == f"make dev: port {used_port} is in use"
    suggested = int(suggestion.removesuffix(" make dev\n"))
    assert suggested not in {used_port, used_port + 1, used_port + 2}
    with socket.create_server(("127.0.0.1", suggested)):
        pass


def test_api_listens_on_the_configured_host(start_stack: Callable[..., Any], tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(table("demo", ["read", "write"], "match_demo"))
    stack = start_stack(tmp_path, MATCH_API_HOST="127.0.0.2", MATCH_API_KEYS_FILE=str(keys), WORKER_COUNT="1")
    environment = {"MATCH_API_HOST": "127.0.0.2", "PORT": port(stack), "MATCH_HOME": str(tmp_path)}
    suggestion = f": MATCH_API_HOST=127.0.0.2 PORT={port(stack)} KEY=… make demo\n"

    keyless = run_python("examples/demo.py", environment=environment)
    demo = run_python("examples/demo.py", environment=environment | {"KEY": "match_demo"})

    assert not answers(f"http://127.0.0.1:{port(stack)}/ping", within_s=5)
    assert any(line.endswith(suggestion) for line in stack.output)
    assert keyless.returncode == 1
    assert "KEY=… make demo" in keyless.stderr
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert 'curl -H "Authorization: Bearer $KEY" -F ' in demo.stdout
    assert "match_demo" not in demo.stdout


def test_unreadable_keys_stop_the_start_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("[[keys")

    line = failed_start({"MATCH_HOME": str(tmp_path), "MATCH_API_KEYS_FILE": str(tmp_path / "keys.toml")})

    assert line.startswith(f"make dev: MATCH_API_KEYS_FILE {tmp_path / 'keys.toml'}: invalid TOML")


@pytest.mark.parametrize("home", ["/proc/x", "a-file", "a-file/below"])
def test_unusable_home_is_reported_in_one_line(tmp_path: Path, home: str) -> None:
    (tmp_path / "a-file").touch()

    line = failed_start({"MATCH_HOME": str(tmp_path / home), "PORT": str(free_port())})

    assert line.startswith(f"make dev: MATCH_HOME {tmp_path / home} is not a usable folder: ")


def test_foreign_address_is_reported_in_one_line(tmp_path: Path) -> None:
    line = failed_start({"MATCH_HOME": str(tmp_path), "MATCH_API_HOST": "192.0.2.1", "PORT": str(free_port())})

    assert line.startswith("make dev: MATCH_API_HOST and PORT: cannot listen on 192.0.2.1, port ")


def test_home_in_use_is_reported_in_one_line(stack: Any) -> None:
    line = failed_start({"MATCH_HOME": str(stack.home)})

    assert line.startswith(f"make dev: {stack.home} is in use by another stack")


@pytest.mark.parametrize(("name", "value"), [("PORT", "http"), ("FLOWER_PORT", "0"), ("MATCH_MAX_BACKLOG", "many")])
def test_wrong_setting_is_reported_in_one_line(tmp_path: Path, name: str, value: str) -> None:
    line = failed_start({"MATCH_HOME": str(tmp_path), name: value})

    assert line.startswith(f"make dev: {name} must be")


@pytest.mark.parametrize("service", ["api", "workers"])
def test_each_service_reports_a_wrong_setting_in_one_line(service: str) -> None:
    line = failed_start({"MATCH_STORE_URL": "postgres://localhost"}, module=service)

    assert "MATCH_STORE_URL must look like sqlite:///" in line


def test_dead_worker_is_restarted(stack: Any, photographs: dict[str, bytes]) -> None:
    before = workers(stack)

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
        # A worker that an earlier test killed may still be starting.
        wait_until(lambda url=f"http://{target}/metrics": answers(url, within_s=5))
        assert "match_" in requests.get(f"http://{target}/metrics", timeout=WITHIN_S).text


def test_data_of_the_stack_are_private(stack: Any) -> None:
    url = (stack.home / "redis" / "url").read_text().strip()
    modes = {path: path.stat().st_mode & 0o077 for path in stack.home.rglob("*")}

    with pytest.raises(AuthenticationError), Redis(port=int(url.partition("@")[2].split(":")[1][:-2])) as client:
        client.ping()
    with Redis.from_url(url) as client:
        assert client.ping()
    assert [path for path, mode in modes.items() if mode] == []
    assert not any(url.split(":")[2].split("@")[0] in command for command in children(stack.process.pid).values())


def test_flower_answers(stack: Any) -> None:
    [flower] = [command for command in children(stack.process.pid).values() if "flower" in command]
    address = "http://127.0.0.1:" + flower.rpartition("--port=")[2].split()[0]

    wait_until(lambda: answers(f"{address}/healthcheck", within_s=5))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_stopped_stack_leaves_no_process(start_stack: Callable[..., Any], tmp_path: Path, how: signal.Signals) -> None:
    # An output that cannot show each character that is printed.
    stack = start_stack(tmp_path, PYTHONIOENCODING="ascii:strict")
    pids = children(stack.process.pid)

    stack.process.send_signal(how)

    assert stack.process.wait(WITHIN_S) == 0
    assert len(pids) >= 4
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def workers(stack: Any) -> set[int]:
    return {pid for pid, command in children(stack.process.pid).items() if "workers" in command}
