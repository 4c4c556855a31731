"""The start of a door's process: its settings, or one line that says what is wrong with them; and its log."""

import logging
import sys

from common.config import Settings
from common.errors import ConfigError

WRONG_SETTING = 2


def start(door: str) -> Settings:
    """Return the settings, with logging set up; a wrong one ends the process with status 2 and a line naming it."""
    try:
        settings = Settings.from_env()
    except ConfigError as error:
        print(f"match {door}: {error}", file=sys.stderr)  # noqa: T201 - the one line that a wrong setting gets
        sys.exit(WRONG_SETTING)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return settings
