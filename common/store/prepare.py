"""`python -m common.store.prepare`: makes the store ready, before a rollout, or says why it cannot be used."""

import sys
from contextlib import closing

from common.config import Settings
from common.errors import ConfigError, StoreError
from common.store.factory import open_store
from common.store.preparing import prepare_within

# A cluster that is started at the same time needs some minutes.
WITHIN_S = 600.0


def main() -> int:
    """Prepare the store, waiting for one that is not there yet; return the exit status."""
    try:
        settings = Settings.from_env()
    except ConfigError as error:
        _say(str(error))
        return 2
    with closing(open_store(settings)) as store:
        try:
            prepare_within(store, WITHIN_S)
        except StoreError as error:
            _say(str(error))
            return 1
    _say("the store is ready")
    return 0


def _say(line: str) -> None:
    print(f"match prepare: {line}", file=sys.stderr, flush=True)  # noqa: T201 - it talks to the person at the terminal


if __name__ == "__main__":
    sys.exit(main())
