"""`python -m workers`: one worker process."""

import sys

import celery.apps.worker
from celery.bin.celery import celery as command

from common import command_line
from common.queue.jobs import CONSUMED_QUEUES
from common.startup import start
from common.telemetry import logs
from workers.app import create_app


def main(argv: list[str]) -> int:
    """Run a worker until it receives SIGTERM; return the exit status."""
    parser = command_line.parser("workers", "Run one worker process until SIGTERM.")
    parser.add_argument(
        "-n", dest="name", default="celery@%h", help="name of the worker, %%h is the host (default: %(default)s)"
    )
    name = parser.parse_args(argv).name
    settings = start("worker")
    threads = str(settings.worker_threads)
    # Gossip and mingle only cost messages: workers need no information about each other.
    flags = [
        "-n",
        name,
        "-P",
        "threads",
        "-c",
        threads,
        "-Q",
        ",".join(CONSUMED_QUEUES),
        "-E",
        "--without-gossip",
        "--without-mingle",
    ]
    # Celery's worker_main() discards the exit status: a failed worker would look like a stopped one.
    command.params[0].default = create_app(settings)
    # Celery prints its banner, and messages of its signal handlers, to stdout: write them as log lines.
    celery.apps.worker.safe_say = lambda text, _file=None: logs.write_from_signal_handler("celery.apps.worker", text)
    return int(command.main(args=["--quiet", "worker", *flags], standalone_mode=False) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
