"""Programs that Go builds from source once per machine, for checks and tests.

They are cached in `match-tools` under `$XDG_CACHE_HOME` or `~/.cache`.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dev.locks import locked

# Where Go's own installer puts it; it is often not on PATH.
GO_HOME = "/usr/local/go/bin"


class BuildFailed(Exception):
    """The program is neither on PATH nor can it be built; the text is the reason, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoProgram:
    """A command of a Go module; `package` names it without its version, `tag` is the module's version.

    `flags` are added to `go install`. `needs_c`: parts of it are written in C, so that a C compiler is needed too.
    """

    name: str
    version: str
    package: str
    tag: str
    timeout_s: float
    flags: tuple[str, ...] = ()
    needs_c: bool = False

    @property
    def path(self) -> Path:
        """The path of our own build."""
        return kept("match-tools") / f"{self.name}-{self.version}"

    def find(self) -> Path | None:
        """Return the program on PATH, else the one built earlier, else None."""
        if on_path := shutil.which(self.name):
            return Path(on_path)
        return self.path if self.path.is_file() else None

    def build(self) -> Path:
        """Return the path of our build, after building it if necessary. Raises BuildFailed."""
        go = find_go()
        if go is None:
            raise BuildFailed(f"no {self.name} on PATH, and no Go to build it with")
        if self.needs_c and not (shutil.which("gcc") or shutil.which("clang")):
            raise BuildFailed(f"no {self.name} on PATH, and no C compiler to build it with")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent / f".{self.name}.lock"):
            if not self.path.is_file():
                # Gigabytes of modules and objects. They are removed after a success; an interrupted build resumes.
                work = self.path.parent / f"{self.path.name}-build"
                self._install(go, work)
                (work / self.name).rename(self.path)
                shutil.rmtree(work)
        return self.path

    def _install(self, go: str, work: Path) -> None:
        environment = {
            **os.environ,
            "GOBIN": str(work),
            "GOCACHE": str(work / "cache"),
            "GOMODCACHE": str(work / "modules"),
            # Otherwise the modules are read-only and cannot be removed.
            "GOFLAGS": "-modcacherw",
            "CGO_ENABLED": "1" if self.needs_c else "0",
        }
        # Low priority: the build may share the machine with tests.
        command = ["nice", "-n", "5", go, "install", *self.flags, "-ldflags=-s -w", f"{self.package}@{self.tag}"]
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=self.timeout_s)
        except subprocess.TimeoutExpired as error:
            raise BuildFailed(
                f"{self.name} was not built within {self.timeout_s:.0f} s; the next run resumes"
            ) from error
        except subprocess.CalledProcessError as error:
            last_line = (error.stderr.strip().splitlines() or ["no reason reported"])[-1]
            raise BuildFailed(f"Go cannot build {self.name}: {last_line}") from error


def find_go() -> str | None:
    """Return the path of the go command, or None."""
    return shutil.which("go") or shutil.which("go", path=GO_HOME)


def kept(name: str) -> Path:
    """Return our cache folder of that name, under `$XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
