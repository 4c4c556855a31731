"""nginx with the configuration in proxy/, on loopback: for tests and benchmarks."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

from dev.ports import LOOPBACK, free_port

CONFIGURATION = Path(__file__).resolve().parent.parent / "proxy"
# Debian's is in a folder that is not on every user's PATH.
FOLDERS = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
WITHIN_S = 20.0


class NoProxy(Exception):
    """nginx cannot be started or reloaded; the text has the reason."""


def why_not() -> str:
    """Return in one line what is missing to start nginx, an empty string if nothing is."""
    return "" if shutil.which("nginx", path=FOLDERS) else "the proxy needs nginx: none on PATH or in /usr/sbin"


class Proxy:
    """nginx with its files in `folder`, in front of the APIs at the ports `upstreams`.

    `with_keys` is for APIs with API keys. `certificate` is a file with a certificate and its key, for HTTPS.
    """

    def __init__(
        self, folder: Path, upstreams: Iterable[int], *, with_keys: bool = False, certificate: Path | None = None
    ) -> None:
        self.port = free_port()
        self.url = f"{'https' if certificate else 'http'}://{LOOPBACK}:{self.port}"
        self.log = folder / "log"
        self._folder = folder
        self._upstreams = tuple(upstreams)
        self._with_keys = with_keys
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which("nginx", path=FOLDERS)
        if program is None:
            raise NoProxy(why_not())
        shutil.copytree(CONFIGURATION, self._folder, dirs_exist_ok=True)
        if self._with_keys:
            shutil.copy(CONFIGURATION / "keys" / "auth.conf", self._folder)
        (self._folder / "listen.conf").write_text(self._listen())
        (self._folder / "health.conf").write_text(f"listen {LOOPBACK}:{free_port()};\n")
        self._write_upstreams()
        # As root nginx would switch to another user, who may not write to the folder.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-e", "stderr", "-p", f"{self._folder}/", "-c", f"{self._folder}/nginx.conf", *user],
                stdout=log,
                stderr=log,
            )
        self._wait_until_up(self._process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WITHIN_S)

    def route_to(self, upstreams: Iterable[int], *, within_s: float = 60.0) -> None:
        """Send requests only to these APIs; wait until no nginx process uses the earlier ones."""
        if self._process is None:
            raise NoProxy("nginx was not started")
        self._upstreams = tuple(upstreams)
        self._write_upstreams()
        old = _children(self._process.pid)
        self._process.send_signal(signal.SIGHUP)
        deadline = monotonic() + within_s
        while old & _children(self._process.pid):
            if monotonic() > deadline:
                raise NoProxy(f"nginx still has open requests to the earlier APIs; its log is {self.log}")
            sleep(0.05)

    def _listen(self) -> str:
        address = f"{LOOPBACK}:{self.port}"
        if self._certificate is None:
            return f"listen {address} backlog=2048;\n"
        file = self._certificate
        return f"listen {address} ssl backlog=2048;\nssl_certificate {file};\nssl_certificate_key {file};\n"

    def _write_upstreams(self) -> None:
        lines = [f"server {LOOPBACK}:{port} max_conns=256 max_fails=3 fail_timeout=5s;\n" for port in self._upstreams]
        (self._folder / "upstream.conf").write_text("".join(lines))

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = monotonic() + WITHIN_S
        while monotonic() < deadline and process.poll() is None:
            with suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=1):
                return
            sleep(0.02)
        process.kill()
        process.wait()
        raise NoProxy(f"nginx did not start: {self.log.read_text().strip()}")


def _children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
