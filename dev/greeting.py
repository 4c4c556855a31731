"""What `make dev` says at its start: where everything is, and how it is tried."""

from pathlib import Path

from common.config import Settings
from dev.ports import LOOPBACK
from dev.programs import say

# The one that `make demo` looks at unless told otherwise.
DEMO_PORT = 8888


def reached_at(settings: Settings) -> str:
    """Return the API's address as this machine reaches it."""
    on_this_machine = {"0.0.0.0": LOOPBACK, "[::]": "[::1]"}  # noqa: S104 - told apart, not listened on
    return f"http://{on_this_machine.get(settings.listens_on, settings.listens_on)}:{settings.port}"


def demo_command(settings: Settings) -> str:
    """Return what is typed in another terminal to try this stack."""
    address = reached_at(settings)
    host = "" if f"//{LOOPBACK}:" in address else f"MATCH_API_HOST={settings.listens_on.strip('[]')} "
    port = "" if settings.port == DEMO_PORT else f"PORT={settings.port} "
    key = "" if settings.api_keys_file is None else "KEY=… "
    return f"{host}{port}{key}make demo"


def greet(settings: Settings, *, flower_port: int | None, logs: Path) -> None:
    """Say where everything is; flower may be left out."""
    say(f"API     {reached_at(settings)}")
    if settings.listens_on != LOOPBACK:
        say(f"        listens on {settings.listens_on}, {openness(settings)}")
    if flower_port is not None:
        say(f"flower  http://{LOOPBACK}:{flower_port}")
    say(f"Redis   {settings.redis_url.rpartition('@')[2].partition('?')[0].removeprefix('redis://')}")
    say(f"store   {settings.store_url or settings.elasticsearch_url.rpartition('@')[2]}")
    say(f"data    {settings.home.resolve()}   logs: {logs}")
    say(f"Ctrl-C stops all of it. Try it from another terminal: {demo_command(settings)}")


def openness(settings: Settings) -> str:
    """Return who may use an API that others may reach."""
    if settings.api_keys_file is not None:
        return "for those who have a key"
    return "and whoever reaches it may add, search and delete: MATCH_API_KEYS_FILE is not set"
