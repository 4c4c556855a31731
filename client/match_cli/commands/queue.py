"""`match queue`: the state of the queue, and its pause."""

import typer

from match_cli import options, output
from match_cli.context import client_of
from match_client import Queue

app = typer.Typer(no_args_is_help=True, help="Show, pause and resume the queue.")


@app.command()
def status(context: typer.Context, *, is_json: options.Json = False) -> None:
    """Show the tasks that wait, run and failed, and the workers."""
    with client_of(context) as match:
        _print(match.queue(), is_json=is_json)


@app.command()
def pause(context: typer.Context, *, is_json: options.Json = False) -> None:
    """Let no worker begin a task, until the queue is resumed; adds are still accepted."""
    with client_of(context) as match:
        _print(match.pause_queue(), is_json=is_json)


@app.command()
def resume(context: typer.Context, *, is_json: options.Json = False) -> None:
    """Let the workers begin tasks again."""
    with client_of(context) as match:
        _print(match.resume_queue(), is_json=is_json)


def _print(queue: Queue, *, is_json: bool) -> None:
    if is_json:
        output.document(output.plain(queue))
        return
    output.line(f"queue: {'paused' if queue.is_paused else 'running'}, workers: {queue.workers}")
    output.line(f"waiting: {queue.waiting}, the oldest for {queue.oldest_age_s:.0f} s")
    output.line(f"running: {queue.running}, {queue.rate_per_s:g} a second")
    output.line(f"failed: {queue.failed}")
