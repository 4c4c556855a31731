"""Programs and definitions that the checks need beyond PyPI's: from Go modules, once a machine.

They are kept in `match-tools` under `$XDG_CACHE_HOME` or `~/.cache`. Go holds whatever it fetches against its checksum
database.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from dev.cluster.programs import KEDA_OPERATOR
from dev.go_builds import find_go, kept
from dev.locks import locked


class MissingTool(Exception):
    """A tool is not there and cannot be built; the text says in one line what is missing."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command of a Go module at a version."""

    name: str
    package: str
    version: str


@dataclass(frozen=True, slots=True)
class Source:
    """A command whose source is ours."""

    name: str
    folder: Path

    @property
    def version(self) -> str:
        """Return what tells this source from an earlier one."""
        return sha256(b"".join(file.read_bytes() for file in sorted(self.folder.iterdir()))).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module at a version, for the files that lie in it."""

    path: str
    version: str


KUSTOMIZE = Program("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "v5.8.1")
KUBE_SCORE = Program("kube-score", "github.com/zegl/kube-score/cmd/kube-score", "v1.20.0")
# Compose's own loader, by a program of ours: the one that comes with it passes no environment on.
COMPOSE = Source("compose", Path(__file__).resolve().parents[1] / "compose")
# The library of Kubernetes' own admission, for which there is no command.
POD_SECURITY = Source("pod-security", Path(__file__).resolve().parents[1] / "pod-security")

# The one that runs where the manifests are applied.
KEDA = Module(KEDA_OPERATOR.module, KEDA_OPERATOR.version)
ECK = Module("github.com/elastic/cloud-on-k8s/v3", "v3.5.0")
PROMETHEUS = Module("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
GATEWAY = Module("sigs.k8s.io/gateway-api", "v1.4.1")


def build(program: Program | Source) -> Path:
    """Return the program, built now if it is the first time. Raises MissingTool."""
    built = cache() / "bin" / f"{program.name}-{program.version}"
    if built.exists():
        return built
    go = _go(program.name)
    built.parent.mkdir(parents=True, exist_ok=True)
    with locked(cache() / "lock"), TemporaryDirectory(dir=built.parent) as work:
        if not built.exists():
            if isinstance(program, Source):
                _run([go, "build", "-C", str(program.folder), "-o", work, "."])
            else:
                _run([go, "install", f"{program.package}@{program.version}"], GOBIN=work)
            next(Path(work).iterdir()).rename(built)
    return built


def fetch(module: Module) -> Path:
    """Return the folder of the module's files, fetched now if it is the first time. Raises MissingTool."""
    link = cache() / "modules" / f"{module.path.replace('/', '-')}-{module.version}"
    if link.is_symlink() and link.exists():
        return link
    found = json.loads(_run([_go(module.path), "mod", "download", "-json", f"{module.path}@{module.version}"]))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(found["Dir"])
    return link


def cache() -> Path:
    """Return the folder where everything is kept."""
    return kept("match-tools")


def _go(wanted: str) -> str:
    found = find_go()
    if found is None:
        raise MissingTool(f"{wanted}: Go builds it, and there is no go on PATH")
    return found


def _run(command: list[str], **variables: str) -> str:
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false", **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise MissingTool(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")
    return done.stdout
