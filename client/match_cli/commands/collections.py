"""`match collections`: the collections of a service, and their quotas."""

from typing import Annotated

import typer

from match_cli import options, output
from match_cli.context import client_of
from match_cli.exits import UsageProblem
from match_client import Collection

app = typer.Typer(no_args_is_help=True, help="List, create and delete collections.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The collection.")]


@app.command("list")
def list_(context: typer.Context, *, is_json: options.Json = False) -> None:
    """List the collections that the API key may use."""
    with client_of(context) as match:
        _print(list(match.collections()), is_json=is_json)


@app.command()
def put(
    context: typer.Context,
    name: Name,
    *,
    max_images: Annotated[int | None, typer.Option(min=0, help="Quota; default: none.")] = None,
    is_json: options.Json = False,
) -> None:
    """Create a collection, or change its quota."""
    with client_of(context) as match:
        _print([match.put_collection(name, max_images=max_images)], is_json=is_json)


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    *,
    is_confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_json: options.Json = False,
) -> None:
    """Delete a collection with all its images."""
    with client_of(context) as match:
        if not is_confirmed:
            number = match.collection(name).images
            if not typer.confirm(f"delete the collection {name} with {number} images?", err=True):
                raise UsageProblem("nothing is deleted")
        task = match.delete_collection(name)
    if is_json:
        output.document(output.plain(task))
    else:
        output.message(f"{name} is being deleted: match tasks {task.id} shows whether it has ended")


def _print(listed: list[Collection], *, is_json: bool) -> None:
    if is_json:
        for collection in listed:
            output.document(output.plain(collection))
    else:
        rows = [[collection.name, collection.images, collection.max_images] for collection in listed]
        output.table(["name", "images", "quota"], rows)
