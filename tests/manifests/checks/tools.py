"""Programs and definitions from Go modules, built or fetched once a machine.

They are in `match-tools` under `$XDG_CACHE_HOME` or `~/.cache`. Go verifies each module with its checksum database.
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
    """A tool is missing and cannot be built; the text is one line with the reason."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command of a Go module at a version."""

    name: str
    package: str
    version: str


@dataclass(frozen=True, slots=True)
class Source:
    """A command whose source is in this folder."""

    name: str
    folder: Path

    @property
    def version(self) -> str:
        """The digest of the source."""
        return sha256(b"".join(file.read_bytes() for file in sorted(self.folder.iterdir()))).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module at a version, for its files."""

    path: str
    version: str


KUSTOMIZE = Program("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "v5.8.1")
KUBE_SCORE = Program("kube-score", "github.com/zegl/kube-score/cmd/kube-score", "v1.20.0")
# Compose's own loader: the module's command does not pass the environment on.
COMPOSE = Source("compose", Path(__file__).resolve().parents[1] / "compose")
# The library of Kubernetes' Pod Security admission, which has no command.
POD_SECURITY = Source("pod-security", Path(__file__).resolve().parents[1] / "pod-security")

# The version of the cluster tests.
KEDA = Module(KEDA_OPERATOR.module, KEDA_OPERATOR.version)
ECK = Module("github.com/elastic/cloud-on-k8s/v3", "v3.5.0")
PROMETHEUS = Module("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
GATEWAY = Module("sigs.k8s.io/gateway-api", "v1.4.1")


def build(program: Program | Source) -> Path:
    """Return the program, built at the first call. Raises MissingTool."""
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
    """Return the folder of the module's files, fetched at the first call. Raises MissingTool."""
    link = cache() / "modules" / f"{module.path.replace('/', '-')}-{module.version}"
    if link.is_symlink() and link.exists():
        return link
    module_info = json.loads(_run([_go(module.path), "mod", "download", "-json", f"{module.path}@{module.version}"]))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(module_info["Dir"])
    return link


def cache() -> Path:
    """Return the folder of all programs and definitions."""
    return kept("match-tools")


def _go(name: str) -> str:
    go = find_go()
    if go is None:
        raise MissingTool(f"{name}: Go builds it, and Go is not installed")
    return go


def _run(command: list[str], **variables: str) -> str:
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false", **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise MissingTool(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")
    return done.stdout
