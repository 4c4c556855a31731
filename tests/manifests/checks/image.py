"""Images without a container engine: the RUN lines of a Dockerfile in a chroot.

This machine's /usr and a Python replace the base image; the Dockerfile installs everything else. A container has mount
and PID namespaces, a read-only root and the user of the Dockerfile. It shares the network namespace of its parent.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from checks.dockerfile import Dockerfile, Stage
from checks.tools import cache
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ("unshare", "nsenter", "chroot", "setpriv", "mount", "tini")
ROOT_ONLY = {
    "passwd": "root:x:0:0::/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "shadow": "root:*:1::::::\n",
    "gshadow": "",
}
STARTED_WITHIN_S = 60
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAKE_ROOT = Path(__file__).with_name("make_root.sh")


class BuildFailed(Exception):
    """A RUN line failed; the text has its output."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A bind mount of a folder of this machine."""

    source: Path
    target: str
    read_only: bool = True

    def __str__(self) -> str:
        return f"{'ro' if self.read_only else 'rw'} {self.source} {self.target}"


def why_not() -> str:
    """Return the reason why images cannot be built here, or an empty string."""
    if os.geteuid() != 0:
        return "images need root: chroot and mount"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"images need {', '.join(missing)}" if missing else ""


def python_home(dockerfile: Dockerfile) -> Path:
    """Return a Python of the base image's minor version next to this one, else this one."""
    minor = re.findall(r"python:(\d+\.\d+)", dockerfile.stages[0].base)[0]
    running = Path(sys.base_prefix)
    candidates = sorted(path for path in running.parent.glob(f"{minor}.*") if (path / "bin" / "python3").exists())
    return candidates[-1] if candidates else running


class BuiltImage:
    """A target of a Dockerfile, built in a folder."""

    def __init__(self, dockerfile: Dockerfile, target: str | None, folder: Path) -> None:
        self.python = python_home(dockerfile)
        self._folder = folder
        self._final = dockerfile.final(target)
        self._environment = dockerfile.environment(self._final)
        self.entrypoint = self._final.entrypoint
        self.healthcheck = self._final.healthcheck
        (self.user,) = self._final.each("USER")
        (origin,) = {origin for origin, _, _ in self._final.copies}
        (stage,) = (stage for stage in dockerfile.stages if stage.name == origin)
        self._accounts = self._make_accounts(dockerfile.line(self._final))
        self._installed = self._install(stage)
        self._copy_and_compile(stage)

    @property
    def binds(self) -> list[Bind]:
        """Return the folders that the last stage copies from the build stage, and its account files."""
        folders = {"/opt/match": self._installed, "/app": self._folder / "app"}
        copied = [Bind(folders[target], target) for _, _, target in self._final.copies]
        return [*copied, *(Bind(self._accounts / name, f"/etc/{name}") for name in ("passwd", "group"))]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of its programs."""
        path = self._environment["PATH"].replace("$PATH", f"/shims:{SYSTEM_PATH}")
        # With this path, the replacement Python finds its library.
        return {**self._environment, "LD_LIBRARY_PATH": "/usr/local/lib", **variables, "PATH": path}

    def _make_accounts(self, stages: Sequence[Stage]) -> Path:
        """Run the RUN lines of the stage and below it, with an /etc that has only root; return that /etc."""
        etc = self._folder / "etc"
        etc.mkdir(parents=True)
        for name, line in ROOT_ONLY.items():
            (etc / name).write_text(line)
        shutil.copy("/etc/login.defs", etc)
        for run in (run for stage in stages for run in stage.each("RUN")):
            self._run(run, [Bind(etc, "/etc", read_only=False)])
        return etc

    def _install(self, stage: Stage) -> Path:
        """Install the packages, or use the cached result of the same lines."""
        runs = [run for run in stage.each("RUN") if "pip" in run]
        sources = [ROOT / source for _, copied, _ in stage.copies for source in copied if source.endswith(".txt")]
        key = sha256("\n".join([*runs, str(self.python), *(path.read_text() for path in sources)]).encode())
        cached = cache() / "images" / key.hexdigest()[:16]
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=cached.parent, prefix="build-") as work:
                (Path(work) / "match").mkdir()
                binds = [Bind(Path(work) / "match", "/opt/match", read_only=False), self._requirements(sources)]
                for run in runs:
                    self._run(run, binds)
                # The user of the image must be able to read it.
                (Path(work) / "match").chmod(0o755)
                (Path(work) / "match").rename(cached)
        return cached

    def _requirements(self, sources: Sequence[Path]) -> Bind:
        folder = self._folder / "requirements"
        folder.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, folder)
        return Bind(folder, "/requirements")

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            # COPY of a file into a folder.
            shutil.copy(source, target)

    def _copy_and_compile(self, stage: Stage) -> None:
        (self._folder / "app").mkdir(parents=True)
        for _, sources, target in stage.copies:
            for source in sources:
                if target.startswith("/app/"):
                    self._copy(ROOT / source, self._folder / target.lstrip("/"))
        for run in stage.each("RUN"):
            if "pip" not in run:
                self._run(
                    run, [Bind(self._installed, "/opt/match"), Bind(self._folder / "app", "/app", read_only=False)]
                )

    def _run(self, run: str, binds: Sequence[Bind]) -> None:
        pip_settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        pip_settings.pop("PIP_FIND_LINKS", None)
        path = {"PATH": f"/shims:{SYSTEM_PATH}", "LD_LIBRARY_PATH": "/usr/local/lib", "HOME": "/tmp"}  # noqa: S108 - its own
        with TemporaryDirectory() as root:
            done = subprocess.run(
                [*chroot_command(Path(root), self.python, binds), "chroot", root, "/bin/sh", "-c", run],
                env={**pip_settings, **path},
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise BuildFailed(f"{run}\n{done.stderr[-3000:]}")


def chroot_command(root: Path, python: Path, binds: Sequence[Bind]) -> list[str]:
    """Return the start of a command line that runs the rest as process 1 with a root at `root`."""
    mounts = "\n".join(map(str, binds))
    return [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        str(MAKE_ROOT),
        str(root),
        str(python),
        mounts,
    ]


class Container:
    """A running image; its output is in `log`."""

    def __init__(
        self, image: BuiltImage, folder: Path, variables: Mapping[str, str], *, volumes: Sequence[Bind] = ()
    ) -> None:
        self._image = image
        self._variables = variables
        self._root = folder / "root"
        self._root.mkdir(parents=True)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *chroot_command(self._root, image.python, [*image.binds, *volumes]),
                    *self._inside(image.entrypoint, chroot=True),
                ],
                env=image.environment(variables),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: bool(self._children()) or not self.running(), "process 1 starts", within_s=STARTED_WITHIN_S)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in the container, as its user."""
        nsenter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--root", "--wd"]
        environment = self._image.environment(self._variables)
        return subprocess.run(
            [*nsenter, *self._inside(command, chroot=False)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def is_healthy(self) -> bool:
        """Return whether HEALTHCHECK succeeds."""
        return self.execute(*self._image.healthcheck).returncode == 0

    @property
    def pid(self) -> int:
        """The process id of its process 1 on this machine."""
        return self._children()[0]

    def running(self) -> bool:
        """Return whether it has not exited."""
        return self._process.poll() is None

    def stop(self, *, within_s: float) -> int:
        """Send SIGTERM and return the exit status; kill it after `within_s`."""
        os.kill(self.pid, 15)
        try:
            return self._process.wait(within_s)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def _children(self) -> list[int]:
        with suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
            return [int(child) for child in children.split()]
        return []

    def _inside(self, command: Sequence[str], *, chroot: bool) -> list[str]:
        user, _, group = self._image.user.partition(":")
        drop = [
            "setpriv",
            f"--reuid={user}",
            f"--regid={group}",
            "--clear-groups",
            "--no-new-privs",
            "--bounding-set=-all",
        ]
        script = 'cd /app 2>/dev/null || cd /; exec "$@"'
        return [*(["chroot", str(self._root)] if chroot else []), *drop, "/bin/sh", "-c", script, "run", *command]
