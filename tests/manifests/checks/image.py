"""Images without a container engine: a Dockerfile's own lines, run in a root of their own that holds little else.

The base image is stood in for by this machine's /usr and a Python: what is installed beside them is what the
Dockerfile installs. A container has namespaces for its mounts and processes, a root that is read-only, and the user
that the Dockerfile names; it has the network of who starts it.
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
NEEDED = ("unshare", "nsenter", "chroot", "setpriv", "mount", "tini")
ROOT_ALONE = {
    "passwd": "root:x:0:0::/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "shadow": "root:*:1::::::\n",
    "gshadow": "",
}
STARTED_WITHIN_S = 60
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Makes the root at $1 of this machine's /usr and the Python at $2, binds what the lines of $3 say, and goes on with the
# rest. The folder shims/ stands for what the base image calls `python` and `pip`, and for an `apt-get` that finds
# everything installed: this machine has it.
ENTER = """
set -e
root=$1; python=$2; mounts=$3; shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir usr etc proc dev tmp opt opt/match app requirements data shims
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
mount --rbind /usr usr
mount --rbind /etc etc
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=1777 tmpfs tmp
if [ "$python" != /usr ]; then mount --bind "$python" usr/local; fi
printf '#!/bin/sh\\nexec python3 "$@"\\n' > shims/python
printf '#!/bin/sh\\nexec python3 -m pip "$@"\\n' > shims/pip
printf '#!/bin/sh\\n' > shims/apt-get
chmod 755 shims/*
for there in usr etc; do mount -o remount,bind,ro "$there"; done
printf '%s\\n' "$mounts" | while read -r how from to; do
  if [ -n "$how" ]; then mount --bind "$from" ".$to"; fi
  if [ "$how" = ro ]; then mount -o remount,bind,ro ".$to"; fi
done
mount -o remount,ro "$root"
exec "$@"
"""


class BuildFailed(Exception):
    """A RUN line failed; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder of this machine that a container sees."""

    source: Path
    target: str
    read_only: bool = True

    def __str__(self) -> str:
        return f"{'ro' if self.read_only else 'rw'} {self.source} {self.target}"


def why_not() -> str:
    """Return in one line what is missing, or nothing."""
    if os.geteuid() != 0:
        return "roots of their own are made by root alone"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"no roots of their own without {', '.join(missing)}" if missing else ""


def python_home(dockerfile: Dockerfile) -> Path:
    """Return a Python of the version that the Dockerfile is based on where one lies beside ours, else ours."""
    minor = re.findall(r"python:(\d+\.\d+)", dockerfile.stages[0].base)[0]
    ours = Path(sys.base_prefix)
    beside = sorted(path for path in ours.parent.glob(f"{minor}.*") if (path / "bin" / "python3").exists())
    return beside[-1] if beside else ours


class Image:
    """What a target of a Dockerfile makes, in a folder."""

    def __init__(self, dockerfile: Dockerfile, target: str | None, folder: Path) -> None:
        self.python = python_home(dockerfile)
        self._folder = folder
        self._final = dockerfile.final(target)
        self._environment = dockerfile.environment(self._final)
        self.entrypoint = self._final.entrypoint
        self.healthcheck = self._final.healthcheck
        (self.user,) = self._final.each("USER")
        (origin,) = {origin for origin, _, _ in self._final.copies}
        (stage,) = (one for one in dockerfile.stages if one.name == origin)
        self._accounts = self._make_accounts(dockerfile.line(self._final))
        self._installed = self._install(stage)
        self._copy_and_compile(stage)

    @property
    def binds(self) -> list[Bind]:
        """Return what the image's last stage copied from the one that built, and the users that it knows."""
        places = {"/opt/match": self._installed, "/app": self._folder / "app"}
        copied = [Bind(places[target], target) for _, _, target in self._final.copies]
        return [*copied, *(Bind(self._accounts / name, f"/etc/{name}") for name in ("passwd", "group"))]

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of its programs."""
        path = self._environment["PATH"].replace("$PATH", f"/shims:{SYSTEM_PATH}")
        # The Python that stands in for the image's own finds its library so.
        return {**self._environment, "LD_LIBRARY_PATH": "/usr/local/lib", **given, "PATH": path}

    def _make_accounts(self, stages: Sequence[Stage]) -> Path:
        """Run what the stages below the image run, in a root that knows root alone; return its /etc."""
        etc = self._folder / "etc"
        etc.mkdir(parents=True)
        for name, line in ROOT_ALONE.items():
            (etc / name).write_text(line)
        shutil.copy("/etc/login.defs", etc)
        for run in (run for stage in stages for run in stage.each("RUN")):
            self._run(run, [Bind(etc, "/etc", read_only=False)])
        return etc

    def _install(self, stage: Stage) -> Path:
        """Run what installs packages, unless the same was run before."""
        runs = [run for run in stage.each("RUN") if "pip" in run]
        sources = [ROOT / source for _, copied, _ in stage.copies for source in copied if source.endswith(".txt")]
        key = sha256("\n".join([*runs, str(self.python), *(path.read_text() for path in sources)]).encode())
        kept = cache() / "images" / key.hexdigest()[:16]
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=kept.parent, prefix="build-") as work:
                (Path(work) / "match").mkdir()
                binds = [Bind(Path(work) / "match", "/opt/match", read_only=False), self._requirements(sources)]
                for run in runs:
                    self._run(run, binds)
                # Readable by whoever the image runs as.
                (Path(work) / "match").chmod(0o755)
                (Path(work) / "match").rename(kept)
        return kept

    def _requirements(self, sources: Sequence[Path]) -> Bind:
        folder = self._folder / "requirements"
        folder.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, folder)
        return Bind(folder, "/requirements")

    def _copy_and_compile(self, stage: Stage) -> None:
        (self._folder / "app").mkdir(parents=True)
        for _, sources, target in stage.copies:
            for source in sources:
                if target.startswith("/app/"):
                    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
                    shutil.copytree(ROOT / source, self._folder / target.lstrip("/"), ignore=ignored)
        for run in stage.each("RUN"):
            if "pip" not in run:
                self._run(
                    run, [Bind(self._installed, "/opt/match"), Bind(self._folder / "app", "/app", read_only=False)]
                )

    def _run(self, run: str, binds: Sequence[Bind]) -> None:
        network = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        network.pop("PIP_FIND_LINKS", None)
        path = {"PATH": f"/shims:{SYSTEM_PATH}", "LD_LIBRARY_PATH": "/usr/local/lib", "HOME": "/tmp"}  # noqa: S108 - its own
        with TemporaryDirectory() as root:
            done = subprocess.run(
                [*enter(Path(root), self.python, binds), "chroot", root, "/bin/sh", "-c", run],
                env={**network, **path},
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise BuildFailed(f"{run}\n{done.stderr[-3000:]}")


def enter(root: Path, python: Path, binds: Sequence[Bind]) -> list[str]:
    """Return how a command begins that runs with a root of its own at `root`, as process 1."""
    mounts = "\n".join(map(str, binds))
    return [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "/bin/sh",
        "-c",
        ENTER,
        "enter",
        str(root),
        str(python),
        mounts,
    ]


class Container:
    """An image that runs; what it says goes into `log`."""

    def __init__(self, image: Image, folder: Path, given: Mapping[str, str], *, volumes: Sequence[Bind] = ()) -> None:
        self._image = image
        self._given = given
        self._root = folder / "root"
        self._root.mkdir(parents=True)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *enter(self._root, image.python, [*image.binds, *volumes]),
                    *self._inside(image.entrypoint, chroot=True),
                ],
                env=image.environment(given),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: bool(self._children()) or not self.running(), "process 1", within_s=STARTED_WITHIN_S)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a further command in it, as its user."""
        into = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--root", "--wd"]
        environment = self._image.environment(self._given)
        return subprocess.run(
            [*into, *self._inside(command, chroot=False)], env=environment, capture_output=True, text=True, check=False
        )

    def is_healthy(self) -> bool:
        """Say what its HEALTHCHECK says."""
        return self.execute(*self._image.healthcheck).returncode == 0

    @property
    def pid(self) -> int:
        """Its process 1, by its number here."""
        return self._children()[0]

    def running(self) -> bool:
        """Say whether it has not ended."""
        return self._process.poll() is None

    def stop(self, *, within_s: float) -> int:
        """Tell it to end, as an engine does, and return its status; one that takes longer is killed."""
        os.kill(self.pid, 15)
        try:
            return self._process.wait(within_s)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
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
