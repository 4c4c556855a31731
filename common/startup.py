"""Start of a service's process: settings, or one line that names the invalid one; then the log."""

import sys
from typing import NoReturn

from common.config import Settings
from common.errors import ConfigError
from common.telemetry import logs, tracing

WRONG_SETTING = 2


def start(service: str) -> Settings:
    """Return the settings and configure logging; an invalid one ends the process with status 2 and a line about it."""
    try:
        settings = Settings.from_env()
        tracing.check(settings.tracing_endpoint)
    except ConfigError as error:
        stop_over(service, error)
    logs.configure(settings)
    return settings


def stop_over(service: str, error: ConfigError) -> NoReturn:
    """End the process with one line about the invalid setting."""
    print(f"match {service}: {error}", file=sys.stderr)  # noqa: T201 - before logging is configured
    sys.exit(WRONG_SETTING)
