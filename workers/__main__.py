"""`python -m workers`: one worker process."""

import sys

import celery.apps.worker
from celery.bin.celery import celery as command

from common import command_line
from common.queue.jobs import WORKED_QUEUES
from common.startup import start
from common.telemetry import logs
from workers.app import create_app


def main(argv: list[str]) -> int:
    """Run a worker until it is told to stop; return the exit status."""
    parser = command_line.parser("workers", "Run one worker process until SIGTERM.")
    parser.add_argument(
        "-n", dest="name", default="celery@%h", help="name of the worker, %%h is the host (default: %(default)s)"
    )
    name = parser.parse_args(argv).name
    settings = start("worker")
    threads = str(settings.worker_threads)
    # Gossip and mingle only cost messages: workers need to know nothing of each other.
    flags = [
        "-n",
        name,
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
    return int(command.main(args=["--quiet", "worker", *flags], standalone_mode=False) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
