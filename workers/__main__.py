"""`python -m workers`: one worker process; further arguments go to Celery, for instance `-n worker1@%h`."""

import sys

from common.jobs import WORKED_QUEUES
from common.startup import start
from workers.app import create_app


def main(argv: list[str]) -> int:
    """Run a worker until it is told to stop; return the exit status."""
    settings = start("worker")
    threads = str(settings.worker_threads)
    # Gossip and mingle only cost messages: workers need to know nothing of each other.
    flags = [
        "-P",
        "threads",
        "-c",
        threads,
        "-Q",
        ",".join(WORKED_QUEUES),
        "-E",
        "--without-gossip",
        "--without-mingle",
    ]
    create_app(settings).worker_main(["worker", *flags, *argv])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
