"""The programs of a cluster, built from Go modules, once a machine.

    python -m dev.cluster.programs      builds what is missing, and says how long each took

They are kept in `$MATCH_CLUSTER_CACHE`, else in `match-cluster` under `$XDG_CACHE_HOME` or `~/.cache`. The versions
stand in `modules/`; Go holds everything that it fetches against its checksum database.
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

from dev.cluster.keda_source import copy_with_redis_alone
from dev.go_builds import find_go, kept
from dev.locks import alone

MODULES = Path(__file__).parent / "modules"
BUILD = "make k8s-programs"
SMALL = "-s -w"


class BuildFailed(Exception):
    """A program could not be built; the text is Go's."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command of a Go module; `recipe` is the file in `modules/` that names the module's version."""

    name: str
    recipe: str
    module: str
    command: str = ""

    @property
    def version(self) -> str:
        """Return the version that is built."""
        return _version(self.recipe, self.module)

    @property
    def path(self) -> Path:
        """Return where the program is once it is built."""
        return cache() / "bin" / f"{self.name}-{self.version}"


KUBERNETES = "k8s.io/kubernetes"
BESIDE = "beside"
KEDA = "github.com/kedacore/keda/v2"

ETCD = Program("etcd", "etcd", "go.etcd.io/etcd/server/v3")
API_SERVER = Program("kube-apiserver", "kubernetes", KUBERNETES, "/cmd/kube-apiserver")
CONTROLLERS = Program("kube-controller-manager", "kubernetes", KUBERNETES, "/cmd/kube-controller-manager")
SCHEDULER = Program("kube-scheduler", "kubernetes", KUBERNETES, "/cmd/kube-scheduler")
KUBECTL = Program("kubectl", "kubernetes", KUBERNETES, "/cmd/kubectl")
KWOK = Program("kwok", BESIDE, "sigs.k8s.io/kwok", "/cmd/kwok")
KEDA_OPERATOR = Program("keda-operator", BESIDE, KEDA, "/cmd/operator")
KEDA_ADAPTER = Program("keda-adapter", BESIDE, KEDA, "/cmd/adapter")
# What a cluster needs comes first, what scales in it last.
PROGRAMS = (ETCD, API_SERVER, CONTROLLERS, SCHEDULER, KUBECTL, KWOK, KEDA_OPERATOR, KEDA_ADAPTER)


def cache() -> Path:
    """Return the folder where everything that was built is kept."""
    if named := os.environ.get("MATCH_CLUSTER_CACHE"):
        return Path(named)
    return kept("match-cluster")


def why_not() -> str:
    """Return in one line what is missing to start a cluster, or nothing."""
    missing = [program.name for program in PROGRAMS if not program.path.exists()]
    if missing:
        return f"no cluster: {', '.join(missing)} not built yet; `{BUILD}` does (half an hour, once)"
    if shutil.which("openssl") is None:
        return "no cluster: no openssl command to make its certificates with"
    return ""


def build() -> None:
    """Build what is missing, one after the other, and say how long each took."""
    for part in ("bin", "build"):
        (cache() / part).mkdir(parents=True, exist_ok=True)
    with alone(cache() / ".lock"):
        for program in PROGRAMS:
            if not program.path.exists():
                with _told(program.path.name):
                    _build_program(program)


def _build_program(program: Program) -> None:
    source = _prepared(program.recipe)
    flags = f"{SMALL} {_version_flags(program.version)}" if program.module == KUBERNETES else SMALL
    with tempfile.TemporaryDirectory(dir=cache() / "bin") as work:
        built = Path(work) / program.name
        # One compiler at a time and last in line: it takes its time, and leaves the machine to who works on it.
        command = ["nice", "-n", "10", _go(), "build", "-p=1", "-mod=mod", "-trimpath", "-ldflags", flags]
        _run([*command, "-o", str(built), program.module + program.command], source)
        built.rename(program.path)


def _prepared(recipe: str) -> Path:
    """Return a folder in which Go builds what a recipe names."""
    source = cache() / "build" / recipe
    source.mkdir(exist_ok=True)
    shutil.copyfile(MODULES / f"{recipe}.mod", source / "go.mod")
    if recipe == BESIDE:
        found = json.loads(_run([_go(), "mod", "download", "-json", f"{KEDA}@{_version(recipe, KEDA)}"], cache()))
        copy_with_redis_alone(Path(found["Dir"]), source / "keda")
    return source


def _version(recipe: str, module: str) -> str:
    text = (MODULES / f"{recipe}.mod").read_text()
    found: list[str] = re.findall(rf"(?m)^(?:require)?\s+{re.escape(module)} (v\S+)$", text)
    return found[0]


def _version_flags(version: str) -> str:
    """Return what the linker writes into a program of Kubernetes: without it the server claims to be v0.0.0."""
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def _go() -> str:
    found = find_go()
    if found is None:
        raise BuildFailed("the cluster's programs are built by Go 1.26 or later: no go on PATH")
    return found


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
def _told(what: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"{what} …", flush=True)
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Build what is missing."""
    try:
        build()
    except BuildFailed as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
