"""Prometheus's own promtool, which checks the alert rules: one on PATH, else one that Go builds here once.

It is kept in `match-tools` under `$XDG_CACHE_HOME` or `~/.cache`.

    python -m dev.promtool      builds it where there is none, prints where it is
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dev.go_builds import find_go, kept
from dev.locks import alone

VERSION = "3.16.0"
# Prometheus's Go modules count 3.x as 0.3xx.
MODULE = "github.com/prometheus/prometheus/cmd/promtool@v0.316.0"
# No cloud's discovery but those that our example names: they are most of what would be compiled.
TAGS = "remove_all_sd,enable_dns_sd,enable_kubernetes_sd"
# About 200 s of one core, where it is not shared. A machine that is too busy for it skips what needs promtool.
BUILD_WITHIN_S = 600.0


class NoPromtool(Exception):
    """There is none and none can be built; the text says in one line why."""


def find() -> Path | None:
    """Return the promtool that is there, if any."""
    if on_path := shutil.which("promtool"):
        return Path(on_path)
    return _built() if _built().is_file() else None


def build() -> Path:
    """Return a promtool that was built here, now if it is the first time. Raises NoPromtool."""
    go = find_go()
    if go is None:
        raise NoPromtool("no promtool on PATH, and no Go to build it with")
    program = _built()
    program.parent.mkdir(parents=True, exist_ok=True)
    with alone(program.parent / ".promtool.lock"):
        if not program.is_file():
            # Two gigabytes of modules and objects, for that long; a build that was ended goes on from them.
            work = program.parent / f"{program.name}-build"
            _compile(go, work)
            (work / "promtool").rename(program)
            shutil.rmtree(work)
    return program


def _built() -> Path:
    return kept("match-tools") / f"promtool-{VERSION}"


def _compile(go: str, work: Path) -> None:
    environment = {
        **os.environ,
        "GOBIN": str(work),
        "GOCACHE": str(work / "cache"),
        "GOMODCACHE": str(work / "modules"),
        # Else its files are read-only and stay.
        "GOFLAGS": "-modcacherw",
        "CGO_ENABLED": "0",
    }
    # One package at a time and behind others: whoever else works here comes first.
    command = ["nice", "-n", "5", go, "install", "-p=1", f"-tags={TAGS}", "-ldflags=-s -w", MODULE]
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=BUILD_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise NoPromtool(f"promtool was not built within {BUILD_WITHIN_S:.0f} s; the next try goes on") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NoPromtool(f"Go cannot build promtool: {last}") from error


def main() -> int:
    """Say where promtool is; without one say why, and that the tests which need it are skipped."""
    if found := find():
        print(found)
        return 0
    print(f"building promtool {VERSION} with Go: some minutes, once …", file=sys.stderr, flush=True)
    try:
        print(build())
    except NoPromtool as error:
        print(f"the tests of the alert rules that need promtool will be skipped: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
