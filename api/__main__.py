"""`python -m api`: gunicorn with the settings that the API needs."""

import logging
import sys
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from api.access.keys import Keyring
from api.metrics_folder import create_metrics_folder, mark_process_dead, remove_metrics_folder
from common import command_line
from common.config import Settings
from common.errors import ConfigError
from common.startup import start, stop_over

log = logging.getLogger(__name__)


def options(settings: Settings) -> dict[str, Any]:
    """Return gunicorn's settings, each with its reason."""
    return {
        "bind": f"{settings.listens_on}:{settings.port}",
        "workers": settings.worker_count,
        # Requests wait for downloads, Redis and the store: threads, not processes, carry that. A thread also waits for
        # its client, so a buffering proxy stands in front wherever strangers connect (docs/decisions/0008).
        "worker_class": "gthread",
        "threads": settings.api_threads,
        # With what the threads open, below the usual limit of 1,024 descriptors a process.
        "worker_connections": 512,
        # Connections wait in the kernel while all processes are busy.
        "backlog": 2048,
        # No process is replaced for its age: its memory stays the same (`make soak`), and a new one has to read the
        # whole embedded store and to open every connection again.
        "max_requests": 0,
        # A worker whose main thread is silent this long is replaced; requests have their own limits.
        "timeout": 60,
        # A `wait` may take this long; then the process ends all the same.
        "graceful_timeout": int(settings.max_wait_s) + 5,
        # Above the idle time-out of usual clients' pools, so that the client closes. The proxy in front keeps no
        # connection alive: it must not send a request to a process that is about to close.
        "keepalive": 75,
        # One open file of control fewer.
        "control_socket_disable": True,
        # A dying worker's heartbeat must not wait for a slow disk.
        "worker_tmp_dir": "/dev/shm" if sys.platform == "linux" else None,  # noqa: S108 - memory, for the heartbeat
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        # No header changes the path or the scheme, whoever sends it; the address behind proxies is read by our app.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        "header_map": "drop",
        "loglevel": settings.log_level,
        "logger_class": OurLog,
        "errorlog": None,
        # The address is bound before `when_ready`, and no process is forked before its end.
        "when_ready": lambda _server: create_metrics_folder(f"{settings.listens_on}:{settings.port}"),
        "child_exit": lambda _server, worker: mark_process_dead(worker.pid),
        "on_exit": lambda _server: remove_metrics_folder(),
        "proc_name": "match-api",
    }


class OurLog(Logger):
    """gunicorn's log, written as all others are; requests have lines of ours."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn's interface
        """Leave the lines to the root's handler."""
        super().setup(cfg)
        self.error_log.propagate = True


class Server(BaseApplication):
    """gunicorn, configured by our settings alone."""

    def __init__(self, settings: Settings, keyring: Keyring | None) -> None:
        self._settings = settings
        self._keyring = keyring
        super().__init__()

    def load_config(self) -> None:
        """Give gunicorn its settings."""
        for name, value in options(self._settings).items():
            self.cfg.set(name, value)

    def load(self) -> Any:  # noqa: ANN401 - gunicorn's interface
        """Compose the app, in the worker process: connections do not survive a fork."""
        from api.wsgi import compose  # noqa: PLC0415 - said above

        # A process that takes another's place while the keys' file is broken begins with the keys of the start.
        try:
            return compose(self._settings, self._keyring)
        except Exception:
            # gunicorn would print it as it is; by this status it knows that the next process would fare no better.
            log.exception("the API cannot be put together")
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


def keyring_of(settings: Settings) -> Keyring | None:
    """Return the API's keys; where it has none, say so."""
    if settings.api_keys_file is not None:
        return Keyring(settings.api_keys_file)
    log.warning(
        "this API is open: without keys (MATCH_API_KEYS_FILE) everybody who reaches %s may add, search and delete",
        settings.listens_on,
    )
    return None


def main() -> int:
    """Serve until told to stop; return the exit status."""
    command_line.parser("api", "Serve the HTTP API with gunicorn.").parse_args()
    settings = start("api")
    try:
        keyring = keyring_of(settings)
    except ConfigError as error:
        stop_over("api", error)
    Server(settings, keyring).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
