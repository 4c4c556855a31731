"""`python -m workers`: one worker process; further arguments go to Celery, for instance `-n worker1@%h`."""

import sys

import celery.apps.worker
from celery.bin.celery import celery as command

from common.queue.jobs import WORKED_QUEUES
from common.startup import start
from common.telemetry import logs
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
    # Celery's own way to do this, worker_main, forgets the status: a worker that broke would seem to have been stopped.
    command.params[0].default = create_app(settings)
    # What Celery prints inside a signal's handler, and its banner, are no lines of a log.
    celery.apps.worker.safe_say = lambda text, _file=None: logs.say("celery.apps.worker", text)
    return int(command.main(args=["--quiet", "worker", *flags, *argv], standalone_mode=False) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
