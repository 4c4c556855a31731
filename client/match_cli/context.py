"""The service of the current command."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from time import sleep

import typer

from match_cli.folders import config_folder
from match_cli.profiles import Connection, connection
from match_client import Match

# A person waits for a single request.
RETRY_FOR_S = 5.0


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options before the command's name."""

    url: str | None = None
    profile: str | None = None


def service_of(context: typer.Context) -> Connection:
    """Return the address and the key of the command's service."""
    options = context.find_object(GlobalOptions) or GlobalOptions()
    return connection(os.environ, config_folder(), url=options.url, profile=options.profile)


def client_of(
    context: typer.Context, *, retry_for_s: float | None = None, pause: Callable[[float], None] = sleep
) -> Match:
    """Return a client of the command's service."""
    service = service_of(context)
    retry_for_s = RETRY_FOR_S if retry_for_s is None else retry_for_s
    return Match(service.url, service.api_key, retry_for_s=retry_for_s, pause=pause)
