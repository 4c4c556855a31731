"""The start of a door's process: its settings, or one line that says what is wrong with them; and its log."""

import sys
from typing import NoReturn

from common.config import Settings
from common.errors import ConfigError
from common.telemetry import logs, tracing

WRONG_SETTING = 2


def start(door: str) -> Settings:
    """Return the settings, with logging set up; a wrong one ends the process with status 2 and a line naming it."""
    try:
        settings = Settings.from_env()
        tracing.check(settings.tracing_endpoint)
    except ConfigError as error:
        stop_over(door, error)
    logs.configure(settings)
    return settings


def stop_over(door: str, error: ConfigError) -> NoReturn:
    """End the process with the one line that a wrong setting gets."""
    print(f"match {door}: {error}", file=sys.stderr)  # noqa: T201 - said above
    sys.exit(WRONG_SETTING)
