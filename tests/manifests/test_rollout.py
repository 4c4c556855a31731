"""`make rollout`: an API container leaves nginx's upstream, is replaced, and joins again when it is healthy."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Logs its arguments with the servers that are down in the upstream. No nginx process is shutting down here.
DOCKER = """#!/bin/sh
out=$(sed -n 's/^server \\([a-z0-9-]*\\):.* down;$/\\1/p' proxy/upstream.conf)
echo "$* [$out]" >> calls
case "$*" in
    *pgrep*) exit 1 ;;
    *" -t") exit "${BROKEN:-0}" ;;
    *" --wait ${UNHEALTHY:-none}") exit 1 ;;
esac
"""

Rollout = Callable[..., list[str]]


@pytest.fixture
def rollout(tmp_path: Path) -> Rollout:
    """Run the script in a copy of the project; return its steps with containers and nginx."""
    shutil.copytree(ROOT / "proxy", tmp_path / "proxy")
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)

    def rollout(*, fails: bool = False, **environment: str) -> list[str]:
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        variables = {"PATH": os.environ["PATH"], "DOCKER": str(docker), **environment}
        done = subprocess.run(
            [tmp_path / "proxy/rollout.sh"], env=variables, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == fails, done.stderr
        # The last argument is a service that is replaced, or a signal to nginx.
        steps = [line.split() for line in calls.read_text().splitlines()]
        return [f"{step[-2]} {step[-1]}" for step in steps if "up" in step or "-s" in step]

    return rollout


def upstream(folder: Path) -> str:
    return (folder / "proxy/upstream.conf").read_text()


def test_each_container_is_out_of_the_upstream_while_replaced(rollout: Rollout, tmp_path: Path) -> None:
    steps = rollout()

    first = ["reload [api-1]", "api-1 [api-1]", "reload []"]
    second = ["reload [api-2]", "api-2 [api-2]", "reload []"]
    assert steps == first + second
    assert upstream(tmp_path) == (ROOT / "proxy/upstream.conf").read_text()


def test_an_unhealthy_container_stays_out_of_the_upstream(rollout: Rollout, tmp_path: Path) -> None:
    steps = rollout(fails=True, UNHEALTHY="api-1")

    assert steps == ["reload [api-1]", "api-1 [api-1]"]
    assert upstream(tmp_path).count(" down;") == 1


def test_the_next_rollout_begins_with_the_removed_container(rollout: Rollout, tmp_path: Path) -> None:
    rollout(fails=True, UNHEALTHY="api-2")

    steps = rollout()

    assert steps[:3] == ["reload [api-2]", "api-2 [api-2]", "reload []"]
    assert upstream(tmp_path) == (ROOT / "proxy/upstream.conf").read_text()


def test_an_invalid_nginx_configuration_replaces_no_container(rollout: Rollout) -> None:
    assert rollout(fails=True, BROKEN="1") == []
