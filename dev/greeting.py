"""The messages of `make dev` at its start: the addresses of its programs, and the command that tries them."""

from collections.abc import Sequence
from pathlib import Path

from common.config import Settings
from dev.ports import LOOPBACK
from dev.programs import say

# The default of `make demo`.
DEMO_PORT = 8888


def local_address(settings: Settings) -> str:
    """Return the API's host and port for clients on this machine."""
    local = {"0.0.0.0": LOOPBACK, "[::]": "[::1]"}  # noqa: S104 - compared with, not listened on
    return f"{local.get(settings.listens_on, settings.listens_on)}:{settings.port}"


def demo_command(settings: Settings) -> str:
    """Return the command that runs the demo against this stack."""
    host = "" if local_address(settings).startswith(f"{LOOPBACK}:") else f"MATCH_API_HOST={_bare_host(settings)} "
    port = "" if settings.port == DEMO_PORT else f"PORT={settings.port} "
    key = "" if settings.api_keys_file is None else "KEY=… "
    return f"{host}{port}{key}make demo"


def greet(settings: Settings, *, flower_port: int | None, worker_ports: Sequence[int], logs: Path) -> None:
    """Print the addresses of the stack; without `flower_port` there is no flower."""
    say(f"API      http://{local_address(settings)}")
    if settings.listens_on != LOOPBACK:
        say(f"         listens on {settings.listens_on}, {_access(settings)}")
    if flower_port is not None:
        say(f"flower   http://{LOOPBACK}:{flower_port}")
    if any(worker_ports):
        say(f"workers  metrics on port {', '.join(str(port) for port in worker_ports if port)}")
    say(f"Redis    {settings.redis_url.rpartition('@')[2].partition('?')[0].removeprefix('redis://')}")
    say(f"store    {settings.store_url or settings.elasticsearch_url.rpartition('@')[2]}")
    say(f"data     {settings.home.resolve()}   logs: {logs}")
    say(f"Ctrl-C stops everything. To try it, in another terminal: {demo_command(settings)}")


def _bare_host(settings: Settings) -> str:
    return settings.listens_on.strip("[]")


def _access(settings: Settings) -> str:
    if settings.api_keys_file is not None:
        return "open to clients with an API key"
    return "open to every client, to add, search and delete: MATCH_API_KEYS_FILE is not set"
