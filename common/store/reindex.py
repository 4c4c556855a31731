"""`python -m common.store.reindex`: copies the index into a new one of the configured shape, while the service runs."""

import signal
import sys
from contextlib import closing

from common import command_line
from common.config import Settings
from common.errors import ConfigError, StoreError
from common.store.elastic.connection import Connection
from common.store.elastic.copying import Copying
from common.store.factory import elastic_connection, shape


def main() -> int:
    """Copy the index, or resume an earlier run; return the exit status."""
    description = "Copy Elasticsearch's index into a new one that has the shards, replicas and vectors of the settings."
    command_line.parser("common.store.reindex", description).parse_args()
    try:
        settings = Settings.from_env()
    except ConfigError as error:
        _print(str(error))
        return 2
    if settings.store_url is not None:
        _print("the embedded store needs no reindex")
        return 2
    # SIGTERM raises KeyboardInterrupt like Ctrl-C, so that a run unblocks writes before it ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with closing(elastic_connection(settings)) as connection:
        return _copy(connection, settings)


def _copy(connection: Connection, settings: Settings) -> int:
    try:
        Copying(connection.cluster(), settings.elasticsearch_index, shape=shape(settings), report=_print).run()
    except StoreError as error:
        _print(f"{error}\nrun it again to resume")
        return 1
    except KeyboardInterrupt:
        _print("ended; run it again to resume")
        return 130
    return 0


def _print(line: str) -> None:
    print(f"match reindex: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the output of a command


if __name__ == "__main__":
    sys.exit(main())
