"""`match status`, `match usage`, `match tasks` and `match serve`: the service itself."""

import os
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from match_cli import options, output
from match_cli.context import client_of
from match_cli.exits import Exit, UsageProblem
from match_client import Match, Task
from match_client.results import DEFAULT_COLLECTION

SHOWN_TASKS = 100
SHOWN_COLLECTIONS = 10


def status(context: typer.Context, *, collection: options.Collection = None, is_json: options.Json = False) -> None:
    """Show whether the service works, and the number of its images. The exit code is 3 if it does not."""
    with client_of(context) as match:
        readiness = match.readiness()
        counts = _counts(match, collection) if readiness.is_ready else None
    images = None if counts is None else sum(counts.values())
    if is_json:
        output.document({"url": match.url, "images": images, "collections": counts, **output.plain(readiness)})
    else:
        output.line(f"{match.url}: {'ready' if readiness.is_ready else 'not ready'}")
        for error in readiness.errors:
            output.line(f"  {error}")
        if counts is not None:
            output.line(f"images: {images}{_by_collection(counts)}")
    if not readiness.is_ready:
        raise typer.Exit(Exit.UNAVAILABLE)


def _counts(match: Match, collection: str | None) -> dict[str, int]:
    """Return the number of images by collection, of all or of one."""
    if collection is not None:
        return {collection: match.count(collection=collection)}
    return {one.name: one.images for one in match.collections()}


def _by_collection(counts: Mapping[str, int]) -> str:
    """Return the largest collections, unless the default one has all images."""
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if not largest or (len(largest) == 1 and largest[0][0] == DEFAULT_COLLECTION):
        return ""
    shown = ", ".join(f"{name} {number}" for name, number in largest[:SHOWN_COLLECTIONS])
    return f" ({shown}{', …' if len(largest) > SHOWN_COLLECTIONS else ''})"


def usage(
    context: typer.Context,
    *,
    days: Annotated[
        int | None, typer.Option(min=1, max=31, help="Days (UTC) until now; default: the current one.")
    ] = None,
    is_json: options.Json = False,
) -> None:
    """Show requests, adds, searches and bytes by API key and collection; needs a key with the scope admin."""
    with client_of(context) as match:
        rows = match.usage(days=days)
    columns = ["key", "collection", "requests", "adds", "searches", "bytes"]
    if is_json:
        for row in rows:
            output.document(output.plain(row))
    elif rows:
        output.table(columns, [[getattr(row, column) for column in columns] for row in rows])
    else:
        output.message("no requests")


def tasks(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Tasks; default: all in a state.")] = None,
    *,
    state: Annotated[
        str | None, typer.Option(help="failed, pending, running, succeeded, superseded or cancelled; default: failed.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only tasks of this batch; without --code, by default in all states."),
    ] = None,
    code: Annotated[str | None, typer.Option(help="Only tasks that failed with this code.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only names that begin with this text.")] = None,
    collection: options.Collection = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of tasks to list.")] = SHOWN_TASKS,
    is_retry: Annotated[bool, typer.Option("--retry", help="Enqueue failed tasks again.")] = False,
    is_cancel: Annotated[bool, typer.Option("--cancel", help="Cancel waiting tasks; needs their IDs.")] = False,
    is_json: options.Json = False,
) -> None:
    """List tasks, newest first, or retry or cancel them."""
    if is_retry and is_cancel:
        raise UsageProblem("--retry and --cancel exclude each other")
    if is_cancel and not ids:
        raise UsageProblem("--cancel needs the IDs of tasks")
    with client_of(context) as match:
        if is_retry and not ids:
            retried = match.retry_failed(code=code, batch=batch, filepath_prefix=prefix, collection=collection)
            if is_json:
                output.document(output.plain(retried))
            else:
                left = "".join(f", {number} left: {reason}" for reason, number in retried.left.items())
                output.message(f"{retried.retried} enqueued again{left}")
            return
        if ids:
            listed = [_each(match, task_id, is_retry=is_retry, is_cancel=is_cancel) for task_id in ids]
        else:
            matching = match.tasks(state, batch=batch, code=code, filepath_prefix=prefix, collection=collection)
            listed = list(islice(matching, limit))
    _print(listed, is_json=is_json)


def _each(match: Match, task_id: str, *, is_retry: bool, is_cancel: bool) -> Task:
    if is_retry:
        return match.retry(task_id)
    return match.cancel(task_id) if is_cancel else match.task(task_id)


def _print(listed: list[Task], *, is_json: bool) -> None:
    if is_json:
        for task in listed:
            output.document(output.plain(task))
    elif listed:
        output.table(
            ["id", "state", "filepath", "attempts", "next try", "reason"],
            [
                [task.id, task.state, task.filepath, f"{task.attempts}", _next_try(task), _reason(task)]
                for task in listed
            ],
        )
    else:
        output.message("no tasks")


def _next_try(task: Task) -> str | None:
    return task.next_try.isoformat(timespec="seconds") if task.next_try else None


def _reason(task: Task) -> str | None:
    """Return why the task failed, or waits for its next try."""
    reason = task.error or (None if task.has_ended else task.cause)
    return reason.message if reason else None


def serve(
    folder: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The checkout of Match.")] = None,
) -> None:
    """Run the service on this machine until Ctrl-C, as `make dev` does."""
    checkout = _checkout(folder)
    os.chdir(checkout)
    python = checkout / ".venv" / "bin" / "python"
    # The first run installs the dependencies.
    command = [str(python), "-m", "dev.stack"] if (checkout / ".venv" / ".dev").exists() else ["make", "dev"]
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is a constant
    except OSError as error:
        raise UsageProblem(f"{command[0]}: {error.strerror}") from error


def _checkout(folder: Path | None) -> Path:
    """Return the checkout that is named, that of the working directory, or that of an installation in place."""
    starts = [folder] if folder is not None else [Path.cwd(), Path(__file__)]
    for start in starts:
        resolved = start.resolve()
        for candidate in (resolved, *resolved.parents):
            if (candidate / "dev" / "stack.py").is_file() and (candidate / "Makefile").is_file():
                return candidate
    raise UsageProblem("match serve needs a checkout of Match: run it there, or name the checkout with --folder")
