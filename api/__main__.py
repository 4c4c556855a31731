"""`python -m api`: the HTTP API on gunicorn."""

import logging
import sys
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from api.access.keys import Keyring
from api.metrics_folder import SHARED_MEMORY, create_metrics_folder, mark_process_dead, remove_metrics_folder
from common import command_line
from common.config import Settings
from common.errors import ConfigError
from common.startup import start, stop_over

log = logging.getLogger(__name__)


def gunicorn_settings(settings: Settings) -> dict[str, Any]:
    """Return gunicorn's settings, each with its reason."""
    return {
        "bind": f"{settings.listens_on}:{settings.port}",
        "workers": settings.worker_count,
        # Requests spend most of their time waiting for downloads, Redis and the store, so threads serve them. A thread
        # also waits for its client, so untrusted clients connect through a buffering proxy (docs/decisions/0008).
        "worker_class": "gthread",
        "threads": settings.api_threads + settings.download_threads,
        # Together with the sockets and files of the threads, below the usual limit of 1,024 descriptors per process.
        "worker_connections": 512,
        # Connections wait in the kernel while all processes are busy.
        "backlog": 2048,
        # No process is replaced after a number of requests: its memory does not grow (`make soak`), and a new process
        # reads the whole embedded store and opens every connection again.
        "max_requests": 0,
        # A worker whose main thread is unresponsive this long is replaced; requests have their own time limits.
        "timeout": 60,
        # The longest `wait` ends before it; a process that is not done by then is killed.
        "graceful_timeout": int(settings.max_wait_s) + 5,
        # Above the idle time-out of common clients' connection pools, so that the client closes first. The proxy uses
        # no keep-alive, because it could send a request to a process that is about to close.
        "keepalive": 75,
        # The socket of gunicorn's control interface is not used.
        "control_socket_disable": True,
        "worker_tmp_dir": heartbeats_folder(),
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        # No header of a client changes the path or the scheme. The app itself reads the address behind proxies.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        "header_map": "drop",
        # Each request computes in its own thread. With threads of BLAS, one batch of searches would take all cores.
        "raw_env": ["OPENBLAS_NUM_THREADS=1"],
        "loglevel": settings.log_level,
        "logger_class": PropagatingLogger,
        "errorlog": None,
        # gunicorn binds the address before `when_ready`, and forks after it.
        "when_ready": lambda _server: create_metrics_folder(f"{settings.listens_on}:{settings.port}"),
        "child_exit": lambda _server, worker: mark_process_dead(worker.pid),
        "on_exit": lambda _server: remove_metrics_folder(),
        "proc_name": "match-api",
    }


def heartbeats_folder() -> str | None:
    """Return the folder for the heartbeat file of each gunicorn worker; None is the one for temporary files.

    A slow disk would block the worker, so shared memory is preferred. Some systems let only root write there.
    """
    with suppress(OSError), TemporaryFile(dir=SHARED_MEMORY):
        return str(SHARED_MEMORY)
    return None


class PropagatingLogger(Logger):
    """gunicorn's log, in the format of the service's log; `api.telemetry` logs requests."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn's interface
        """Pass records on to the root logger's handler."""
        super().setup(cfg)
        self.error_log.propagate = True


class Server(BaseApplication):
    """gunicorn, configured only by the service's settings: no command line and no configuration file."""

    def __init__(self, settings: Settings, keyring: Keyring | None) -> None:
        self._settings = settings
        self._keyring = keyring
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings."""
        for name, value in gunicorn_settings(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> Any:  # noqa: ANN401 - gunicorn's interface
        """Return the app, composed in the worker process: connections do not survive a fork."""
        from api.wsgi import compose  # noqa: PLC0415 - imported after the fork

        # A process that is started while the keys file is invalid begins with the keys that were loaded at the start.
        try:
            return compose(self._settings, self._keyring)
        except Exception:
            # gunicorn would print the traceback outside the log. The status makes it stop instead of forking again.
            log.exception("the API cannot start")
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


def load_keyring(settings: Settings) -> Keyring | None:
    """Return the API's keys, or None with a warning where the settings name no file of keys."""
    if settings.api_keys_file is not None:
        return Keyring(settings.api_keys_file)
    log.warning(
        "the API is open: without MATCH_API_KEYS_FILE every client that reaches %s can add, search and delete",
        settings.listens_on,
    )
    return None


def main() -> int:
    """Serve until a signal stops the server; return the exit status."""
    command_line.parser("api", "Serve the HTTP API with gunicorn.").parse_args()
    settings = start("api")
    try:
        keyring = load_keyring(settings)
    except ConfigError as error:
        stop_over("api", error)
    Server(settings, keyring).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
