"""`python -m common.store.reindex`: copies the index into a new one of the configured shape, while the service runs."""

import sys
from contextlib import closing

from common import command_line
from common.config import Settings
from common.store.elastic.copying import Copying
from common.store.factory import elastic_connection, shape
from common.store.resumable import UNUSABLE_SETTINGS, ResumableCommand

COMMAND = ResumableCommand("reindex")


def main() -> int:
    """Copy the index, or resume an earlier run; return the exit status."""
    description = "Copy the index into a new one that has the shards, replicas and vectors of the settings."
    command_line.parser("common.store.reindex", description).parse_args()
    return COMMAND.run(_copy)


def _copy(settings: Settings) -> int:
    if settings.store_url is not None:
        COMMAND.report("the embedded store needs no reindex")
        return UNUSABLE_SETTINGS
    with closing(elastic_connection(settings)) as connection:
        index = settings.elasticsearch_index
        Copying(connection.cluster(), index, shape=shape(settings), report=COMMAND.report).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
