"""A node of a search server on loopback: one Java process and its data, without Docker."""

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from dev.asking import answers
from dev.interrupts import on_interrupt
from dev.jars import Jars, java
from dev.locks import locked
from dev.ports import free_port

# A cold start takes 6 s on two idle cores; a busy machine may take ten times as long.
START_TIMEOUT_S = 90.0
# Java writes the archive of loaded classes when it ends.
STOP_TIMEOUT_S = 90.0
SINGLE_NODE = {"discovery.type": "single-node", "transport.port": "0"}


class SearchNode:
    """A node and its data, deleted at the end of the `with`.

    `restart` keeps data and port. `membership` are the settings of a node in a cluster; without them it is a cluster of
    one. A subclass names the product's jars and its own settings. Nodes without `java_options` share an archive of
    loaded classes.
    """

    jars: ClassVar[Jars]
    # Otherwise a small heap full of garbage rejects requests with 429 until it is collected.
    heap_settings: ClassVar[Mapping[str, str]] = {"indices.breaker.total.use_real_memory": "false"}
    single_node: ClassVar[Mapping[str, str]] = SINGLE_NODE
    own_settings: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, *, heap_mib: int = 512, membership: Mapping[str, str] | None = None, java_options: Sequence[str] = ()
    ) -> None:
        self._heap_mib = heap_mib
        self._java_options = java_options
        self._membership = self.single_node if membership is None else membership
        self._home = Path()
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            name = f"match-{self.jars.recipe.name}-"
            self._home = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix=name)))
            self.prepare(self._home)
            self._port = free_port()
            undo.callback(self.kill)
            self.start()
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def prepare(self, home: Path) -> None:
        """Create what the server expects in its home."""

    @property
    def url(self) -> str:
        """Return the node's URL."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def running(self) -> bool:
        """Return whether the node was started and not stopped since."""
        return self._process is not None

    def start(self) -> None:
        """Start the node and wait until it answers, as a member of its cluster."""
        command = self._command(
            self._java_options or [f"-XX:SharedArchiveFile={self._loaded_classes()}", "-Xlog:cds=off"]
        )
        with (self._home / "node.log").open("ab") as log:
            # The node exits when this pipe closes, also when this process is killed.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(f"{self.url}/_cluster/health", within_s=5):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                message = f"{self.jars.product} did not start:\n{self._log_tail()}"
                raise RuntimeError(message)
            time.sleep(0.1)

    def stop(self) -> bool:
        """Stop the node with SIGTERM; return whether it ended in time, by itself."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the node, as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the node if it runs, then start it with the same data on the same port."""
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> bool:
        if self._process is None:
            return True
        process, self._process = self._process, None
        process.send_signal(number)
        with process:  # closes the pipe and waits
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                return False
        return True

    def _log_tail(self) -> str:
        return (self._home / "node.log").read_text(errors="replace")[-2000:]

    def _settings(self) -> dict[str, object]:
        return {
            "path.home": self._home,
            "path.data": self._home / "data",
            "cluster.name": "match-tests",
            "http.host": "127.0.0.1",
            "http.port": self._port,
            "transport.host": "127.0.0.1",
            # Otherwise indices turn read-only on a disk that is nearly full.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            # At each update of what it knows of disks, the server would make read-only indices writable again.
            "cluster.info.update.interval": "24h",
            **self.heap_settings,
            **self.own_settings,
            **self._membership,
        }

    @classmethod
    def _loaded_classes(cls) -> Path:
        """Return Java's archive of loaded classes (CDS); the first call on a machine writes it.

        It halves the CPU of a start, from 4.3 to 2.3 s. Java ignores it if it is missing, or of another version.
        """
        folder = cls.jars.folder()
        archive, partial = folder / "classes.jsa", folder / "partial.jsa"
        with locked(folder / ".lock"):
            if not archive.exists():
                with cls(java_options=[f"-XX:ArchiveClassesAtExit={partial}"]) as node:
                    is_complete = node.stop()
                if is_complete and partial.exists():
                    partial.rename(archive)
        return archive

    def _command(self, options: Sequence[str]) -> list[str]:
        lib = self.jars.folder() / "lib"
        return [
            str(java()),
            f"-Xms{self._heap_mib}m",
            f"-Xmx{self._heap_mib}m",
            "--add-modules=jdk.incubator.vector",
            "--enable-native-access=ALL-UNNAMED",
            *options,
            "-cp",
            ":".join(map(str, sorted(lib.glob("*.jar")))),
            "Launch",
            *(f"{key}={value}" for key, value in self._settings().items()),
        ]


def run(kind: type[SearchNode]) -> None:
    """Run a node until Ctrl-C."""
    if reason := kind.jars.why_not():
        raise SystemExit(reason)
    stop = on_interrupt()
    with kind() as node:
        print(f"{kind.jars.product}: {node.url} (Ctrl-C stops it)", flush=True)
        stop.wait()
