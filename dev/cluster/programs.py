"""The programs of a cluster, built from Go modules once per machine.

    python -m dev.cluster.programs      builds the missing programs and prints the duration of each build

They are cached in `$MATCH_CLUSTER_CACHE`, else in `match-cluster` under `$XDG_CACHE_HOME` or `~/.cache`. The versions
are in `modules/`. Go verifies each download with its checksum database.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.keda_source import copy_with_redis_only
from dev.go_builds import find_go, kept
from dev.locks import locked

MODULES = Path(__file__).parent / "modules"
BUILD_COMMAND = "make k8s-programs"
# Without symbols and debug information.
LINKER_FLAGS = "-s -w"


class BuildFailed(Exception):
    """A program cannot be built; the text has Go's errors."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command of a Go module; `recipe` is the file in `modules/` that names the module's version."""

    name: str
    recipe: str
    module: str
    command: str = ""

    @property
    def version(self) -> str:
        """Return the version in `modules/`."""
        return _version(self.recipe, self.module)

    @property
    def path(self) -> Path:
        """Return the path of the built program."""
        return cache() / "bin" / f"{self.name}-{self.version}"


KUBERNETES = "k8s.io/kubernetes"
ADDONS = "addons"
KEDA = "github.com/kedacore/keda/v2"

ETCD = Program("etcd", "etcd", "go.etcd.io/etcd/server/v3")
API_SERVER = Program("kube-apiserver", "kubernetes", KUBERNETES, "/cmd/kube-apiserver")
CONTROLLERS = Program("kube-controller-manager", "kubernetes", KUBERNETES, "/cmd/kube-controller-manager")
SCHEDULER = Program("kube-scheduler", "kubernetes", KUBERNETES, "/cmd/kube-scheduler")
KUBECTL = Program("kubectl", "kubernetes", KUBERNETES, "/cmd/kubectl")
KWOK = Program("kwok", ADDONS, "sigs.k8s.io/kwok", "/cmd/kwok")
KEDA_OPERATOR = Program("keda-operator", ADDONS, KEDA, "/cmd/operator")
KEDA_ADAPTER = Program("keda-adapter", ADDONS, KEDA, "/cmd/adapter")
# In the order of their builds: the control plane first, KEDA last.
PROGRAMS = (ETCD, API_SERVER, CONTROLLERS, SCHEDULER, KUBECTL, KWOK, KEDA_OPERATOR, KEDA_ADAPTER)


def cache() -> Path:
    """Return the folder of the built programs."""
    if folder := os.environ.get("MATCH_CLUSTER_CACHE"):
        return Path(folder)
    return kept("match-cluster")


def why_not() -> str:
    """Return in one line what is missing to start a cluster, an empty string if nothing is."""
    missing = [program.name for program in PROGRAMS if not program.path.exists()]
    if missing:
        return f"no cluster: {', '.join(missing)} not built yet; run `{BUILD_COMMAND}` (half an hour, once)"
    if shutil.which("openssl") is None:
        return "no cluster: its certificates need the openssl command"
    return ""


def build() -> None:
    """Build the missing programs, one after the other, and print the duration of each build."""
    for part in ("bin", "build"):
        (cache() / part).mkdir(parents=True, exist_ok=True)
    with locked(cache() / ".lock"):
        for program in PROGRAMS:
            if not program.path.exists():
                with _timed(program.path.name):
                    _build_program(program)


def _build_program(program: Program) -> None:
    source = _prepare(program.recipe)
    flags = f"{LINKER_FLAGS} {_version_flags(program.version)}" if program.module == KUBERNETES else LINKER_FLAGS
    with tempfile.TemporaryDirectory(dir=cache() / "bin") as work:
        built = Path(work) / program.name
        # One compiler at a time, with low priority: the build may share the machine with tests.
        command = ["nice", "-n", "10", _go(), "build", "-p=1", "-mod=mod", "-trimpath", "-ldflags", flags]
        _run([*command, "-o", str(built), program.module + program.command], source)
        built.rename(program.path)


def _prepare(recipe: str) -> Path:
    """Write the Go module of a recipe; return its folder."""
    source = cache() / "build" / recipe
    source.mkdir(exist_ok=True)
    shutil.copyfile(MODULES / f"{recipe}.mod", source / "go.mod")
    if recipe == ADDONS:
        module = json.loads(_run([_go(), "mod", "download", "-json", f"{KEDA}@{_version(recipe, KEDA)}"], cache()))
        copy_with_redis_only(Path(module["Dir"]), source / "keda")
    return source


def _version(recipe: str, module: str) -> str:
    text = (MODULES / f"{recipe}.mod").read_text()
    versions: list[str] = re.findall(rf"(?m)^(?:require)?\s+{re.escape(module)} (v\S+)$", text)
    return versions[0]


def _version_flags(version: str) -> str:
    """Return the linker flags that set the version of a Kubernetes program; without them it reports v0.0.0."""
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def _go() -> str:
    go = find_go()
    if go is None:
        raise BuildFailed("the programs of the cluster need Go 1.26 or later: no `go` on PATH")
    return go


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"GOFLAGS": "-buildvcs=false"},
    )
    if done.returncode:
        raise BuildFailed(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout


@contextlib.contextmanager
def _timed(name: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"{name} …", flush=True)
    yield
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Build the missing programs."""
    try:
        build()
    except BuildFailed as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
