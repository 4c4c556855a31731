"""`match batches`: the progress of images that were added or deleted together."""

from collections.abc import Iterable
from itertools import islice
from typing import Annotated

import typer

from match_cli import options, output
from match_cli.context import client_of, long_client_of
from match_cli.exits import Exit
from match_client import Batch

app = typer.Typer(no_args_is_help=True, help="List, follow and cancel batches.")

SHOWN_BATCHES = 20
Id = Annotated[str, typer.Argument(metavar="ID", help="The batch, as match add prints it.")]


@app.command("list")
def list_(
    context: typer.Context,
    *,
    collection: options.Collection = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of batches to list.")] = SHOWN_BATCHES,
    is_json: options.Json = False,
) -> None:
    """List the batches of a collection, newest first."""
    with client_of(context) as match:
        listed = list(islice(match.batches(collection=collection), limit))
    if is_json:
        _print(listed, is_json=True)
    elif listed:
        headings = ["id", "accepted", "state", "total", "done", "failed", "left"]
        output.table(headings, [_row(batch) for batch in listed])
    else:
        output.message("no batches")


@app.command()
def show(context: typer.Context, batch: Id, *, is_json: options.Json = False) -> None:
    """Show how many images of a batch are done, and why others failed."""
    with client_of(context) as match:
        _print([match.batch(batch)], is_json=is_json)


@app.command()
def follow(
    context: typer.Context,
    batch: Id,
    *,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two lines.")] = 2.0,
    is_json: options.Json = False,
) -> None:
    """Show the progress of a batch until it has ended. The exit code is 1 if images failed."""
    with long_client_of(context) as match:
        for current in match.follow(batch, every_s=every):
            _print([current], is_json=is_json)
    if current.failed:
        raise typer.Exit(Exit.INCOMPLETE)


@app.command()
def cancel(context: typer.Context, batch: Id, *, is_json: options.Json = False) -> None:
    """Cancel the images of a batch that wait. It accepts no more images."""
    with client_of(context) as match:
        _print([match.cancel_batch(batch)], is_json=is_json)


def _row(batch: Batch) -> list[object]:
    accepted = batch.accepted.isoformat(" ", "seconds") if batch.accepted else None
    return [batch.id, accepted, batch.state, batch.total, batch.done, batch.failed, batch.pending + batch.running]


def _print(batches: Iterable[Batch], *, is_json: bool) -> None:
    for batch in batches:
        if is_json:
            output.document(output.plain(batch))
        else:
            output.line(f"{batch.id} {batch.state}: {batch.summary}")
