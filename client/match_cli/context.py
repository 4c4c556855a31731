"""The service of the current command."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from time import sleep

import typer

from match_cli.folders import config_folder
from match_cli.profiles import Connection, connection
from match_client import Match

# A person waits for a single request.
RETRY_FOR_S = 5.0
# A service that restarts or is busy, or a full queue, must not end a long run.
LONG_RETRY_FOR_S = 300.0


class StoppedError(Exception):
    """A request is not repeated, since the run ends."""


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options before the command's name."""

    url: str | None = None
    profile: str | None = None


def service_of(context: typer.Context) -> Connection:
    """Return the address and the key of the command's service."""
    options = context.find_object(GlobalOptions) or GlobalOptions()
    return connection(os.environ, config_folder(), url=options.url, profile=options.profile)


def client_of(context: typer.Context) -> Match:
    """Return a client of the command's service."""
    service = service_of(context)
    return Match(service.url, service.api_key, retry_for_s=RETRY_FOR_S)


def long_client_of(context: typer.Context, *, pause: Callable[[float], None] = sleep) -> Match:
    """Return a client for a long run, which outlasts a restart of the service; a wrong address is reported at once."""
    with client_of(context) as match:
        match.ping()
    service = service_of(context)
    return Match(service.url, service.api_key, retry_for_s=LONG_RETRY_FOR_S, pause=pause)


def pause_until(stop: Event) -> Callable[[float], None]:
    """Return a function that sleeps, and raises StoppedError as soon as `stop` is set."""

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise StoppedError

    return pause
