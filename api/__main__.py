"""`python -m api`: gunicorn with the settings that the API needs."""

import logging
import sys
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from api.access.keys import Keyring
from api.server.worker import Bounds, Worker
from api.shared_counts import Places, count_at, counted_together
from common import command_line
from common.config import Settings
from common.errors import ConfigError
from common.startup import start, stop_over

log = logging.getLogger(__name__)


def options(settings: Settings, places: Places) -> dict[str, Any]:
    """Return gunicorn's settings, each with its reason."""
    return {
        "bind": f"{settings.listens_on}:{settings.port}",
        "workers": settings.worker_count,
        # Requests wait for downloads, Redis and the store: threads, not processes, carry that.
        "worker_class": Worker,
        "threads": settings.api_threads,
        # With what the threads open, below the 1,024 descriptors that a process has where nobody said otherwise.
        "worker_connections": 512,
        # What comes while a loop is busy waits in the kernel; the loops take it up within moments, be it to refuse it.
        "backlog": 2048,
        # No process is replaced for its age: its memory stays the same (`make soak`), and a new one has to read the
        # whole embedded store and to open every connection again.
        "max_requests": 0,
        # A worker whose main thread is silent this long is replaced; requests have their own limits.
        "timeout": 60,
        # A `wait` may take this long; then the process ends all the same.
        "graceful_timeout": int(settings.max_wait_s) + 5,
        # Above the idle time-out of usual load balancers' pools, so that it is they who close.
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
        "pre_fork": lambda server, worker: places.give(worker.age, [one.age for one in server.WORKERS.values()]),
        "post_fork": lambda _server, worker: count_at(places.of(worker.age)),
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
        # gunicorn loads its settings anew at SIGHUP, while those who have places go on.
        self._places = Places()
        super().__init__()

    def load_config(self) -> None:
        """Give gunicorn its settings."""
        for name, value in options(self._settings, self._places).items():
            self.cfg.set(name, value)

    def load(self) -> Any:  # noqa: ANN401 - gunicorn's interface
        """Compose the app, in the worker process: connections do not survive a fork."""
        from api.endpoints import largest_form  # noqa: PLC0415 - said above
        from api.routes import ENDPOINTS  # noqa: PLC0415 - the same
        from api.wsgi import compose  # noqa: PLC0415 - the same

        largest = largest_form(ENDPOINTS, self._settings)
        # The largest form and half as much besides, in each process.
        self.bounds = Bounds(self._settings.request_timeout_s, body_bytes=largest, held_bytes=largest * 3 // 2)
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
    with counted_together():
        Server(settings, keyring).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
