"""`python -m common.store.prepare`: prepares the store before a rollout, or reports the reason for a failure."""

import sys
from contextlib import closing

from common import command_line
from common.config import Settings
from common.errors import ConfigError, StoreError
from common.store.factory import open_store
from common.store.preparing import prepare_within

# A cluster that starts at the same time takes some minutes.
WITHIN_S = 600.0


def main() -> int:
    """Wait for the store, prepare it, and return the exit status."""
    description = "Create or check the index or database that the settings name, and wait until it can be used."
    command_line.parser("common.store.prepare", description).parse_args()
    try:
        settings = Settings.from_env()
    except ConfigError as error:
        _print(str(error))
        return 2
    with closing(open_store(settings)) as store:
        try:
            prepare_within(store, WITHIN_S)
        except StoreError as error:
            _print(str(error))
            return 1
    _print("the store is ready")
    return 0


def _print(line: str) -> None:
    print(f"match prepare: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the output of a command


if __name__ == "__main__":
    sys.exit(main())
