"""`python -m common.store.reindex`: a new index in the form that the settings ask for, while the service runs."""

import signal
import sys
from contextlib import closing

from common.config import Settings
from common.errors import ConfigError, StoreError
from common.store.elastic.connection import connect
from common.store.elastic.copying import Copying
from common.store.factory import shape


def main() -> int:
    """Copy the index, or go on where an earlier run ended; return the exit status."""
    try:
        settings = Settings.from_env()
    except ConfigError as error:
        _say(str(error))
        return 2
    if settings.store_url is not None:
        _say("the embedded store needs no reindex")
        return 2
    # As Ctrl-C does: a run that holds writes lets them go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    client = connect(
        settings.elasticsearch_url,
        timeout_s=settings.elasticsearch_timeout_s,
        api_key=settings.elasticsearch_api_key,
        ca_file=settings.elasticsearch_ca_file,
    )
    with closing(client):
        return _copy(Copying(client, settings.elasticsearch_index, shape=shape(settings), report=_say))


def _copy(copying: Copying) -> int:
    try:
        copying.run()
    except StoreError as error:
        _say(f"{error}\nrun again, it goes on where it ended")
        return 1
    except KeyboardInterrupt:
        _say("ended; run again, it goes on where it ended")
        return 130
    return 0


def _say(line: str) -> None:
    print(f"match reindex: {line}", file=sys.stderr, flush=True)  # noqa: T201 - it talks to the person at the terminal


if __name__ == "__main__":
    sys.exit(main())
