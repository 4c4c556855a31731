"""`match list`, `match export`, `match edit` and `match delete`: the stored images."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from match_cli import options, output
from match_cli.context import client_of
from match_cli.discovery import STDIN
from match_cli.exits import Exit, UsageProblem
from match_client import Match, NotFound


def list_(
    context: typer.Context,
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of names.")] = None,
    prefix: options.Prefix = None,
    filters: options.Filters = None,
    collection: options.Collection = None,
    is_json: options.Json = False,
) -> None:
    """List the names of stored images, oldest first."""
    with client_of(context) as match:
        names = match.list(filepath_prefix=prefix, filter=options.parse_filters(filters), collection=collection)
        for name in islice(names, limit):
            (output.document if is_json else output.line)(name)


def export(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A new file; default: stdout.")] = None,
    *,
    prefix: options.Prefix = None,
    filters: options.Filters = None,
    collection: options.Collection = None,
    is_json: options.Json = False,
) -> None:
    """Write a JSON line for each stored image: collection, filepath, metadata and URL.

    `match import` reads the file. Images that were uploaded have no URL.
    """
    with client_of(context) as match, _target(file) as target:
        number = without_url = 0
        images = match.images(filepath_prefix=prefix, filter=options.parse_filters(filters), collection=collection)
        for image in images:
            number += 1
            without_url += image.url is None
            output.document(
                {
                    "collection": collection or image.collection,
                    "filepath": image.filepath,
                    "metadata": image.metadata,
                    "url": image.url,
                },
                to=target,
            )
    if file is not None and is_json:
        output.document({"exported": number, "without_url": without_url})
    else:
        hint = f", {without_url} without a URL: match import needs their files" if without_url else ""
        output.message(f"{number} exported{hint}")


def edit(
    context: typer.Context,
    filepaths: Annotated[list[str], typer.Argument(metavar="FILEPATH", help="Names; - reads them from stdin.")],
    *,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a text; may be repeated.")
    ] = None,
    removed: Annotated[
        list[str] | None, typer.Option("--unset", metavar="KEY", help="Remove a key; may be repeated.")
    ] = None,
    patch: Annotated[str | None, typer.Option(metavar="JSON", help="A JSON merge patch (RFC 7396).")] = None,
    collection: options.Collection = None,
    is_json: options.Json = False,
) -> None:
    """Change the metadata of images; other keys stay. The exit code is 1 if names are unknown."""
    changes = _changes(values or [], removed or [], patch)
    counts = Counter(edited=0, waiting=0, unknown=0)
    with client_of(context) as match:
        for name in _expand(filepaths):
            counts[_edit_one(match, name, changes, collection)] += 1
    shown = {"edited": "edited", "waiting": "are not stored yet", "unknown": "unknown"}
    texts = [f"{counts[key]} {text}" for key, text in shown.items() if counts[key] or key == "edited"]
    _report(dict(counts), ", ".join(texts), is_json=is_json)
    if counts["unknown"]:
        raise typer.Exit(Exit.INCOMPLETE)


def _edit_one(match: Match, name: str, changes: dict[str, Any], collection: str | None) -> str:
    """Change the metadata of an image, and return what it counts as; an unknown name does not end the command."""
    try:
        return "edited" if match.patch(name, changes, collection=collection).is_stored else "waiting"
    except NotFound as error:
        if error.code != "unknown_filepath":
            raise
        output.message(f"{name}: {error}")
        return "unknown"


def delete(
    context: typer.Context,
    filepaths: Annotated[
        list[str] | None, typer.Argument(metavar="[FILEPATH]", help="Names; - reads them from stdin.")
    ] = None,
    *,
    prefix: options.Prefix = None,
    filters: options.Filters = None,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be deleted.")] = False,
    expect: Annotated[int | None, typer.Option(min=0, help="Delete only if so many images are selected.")] = None,
    is_confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    collection: options.Collection = None,
    is_json: options.Json = False,
) -> None:
    """Delete images by their names, or all of a folder or a filter. An unknown name is not an error."""
    selected: dict[str, Any] = {"filepath_prefix": prefix, "filter": options.parse_filters(filters)}
    is_selection = prefix is not None or filters
    if bool(filepaths) == bool(is_selection):
        raise UsageProblem("either FILEPATH or --prefix and --filter are required")
    if filepaths and (is_dry_run or expect is not None):
        raise UsageProblem("--dry-run and --expect need --prefix or --filter")
    with client_of(context) as match:
        if filepaths:
            _delete_names(match, filepaths, collection=collection, is_json=is_json)
            return
        selected["collection"] = collection
        number = match.count_selected(**selected) if is_dry_run or expect is None else expect
        if is_dry_run:
            _report({"selected": number}, f"{number} would be deleted", is_json=is_json)
            return
        if expect is None and not is_confirmed and not typer.confirm(f"delete {number} images?", err=True):
            raise UsageProblem("nothing is deleted")
        task = match.delete_selected(**selected, expect=number)
    message = f"{number} are being deleted: match tasks {task.id} shows whether it has ended"
    _report(output.plain(task), message, is_json=is_json)


def _delete_names(match: Match, filepaths: list[str], *, collection: str | None, is_json: bool) -> None:
    number = 0

    def names() -> Iterator[str]:
        nonlocal number
        for name in _expand(filepaths):
            number += 1
            yield name

    match.delete(names(), collection=collection)
    _report({"deleted": number}, f"{number} deleted", is_json=is_json)


def _report(document: object, message: str, *, is_json: bool) -> None:
    if is_json:
        output.document(document)
    else:
        output.message(message)


def _changes(values: list[str], removed: list[str], patch: str | None) -> dict[str, Any]:
    """Return the merge patch of the options."""
    changes: dict[str, Any] = {}
    if patch is not None:
        try:
            changes = json.loads(patch)
        except ValueError as error:
            raise UsageProblem(f"--patch: not valid JSON: {error}") from error
        if not isinstance(changes, dict):
            raise UsageProblem("--patch: must be a JSON object")
    changes |= dict.fromkeys(removed)
    for text in values:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UsageProblem(f"--set {text}: must be KEY=VALUE")
        changes[key] = value
    if not changes:
        raise UsageProblem("--set, --unset or --patch is required")
    return changes


def _expand(filepaths: list[str]) -> Iterator[str]:
    """Yield names; `-` is replaced by the lines of stdin."""
    for filepath in filepaths:
        if filepath == STDIN:
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        else:
            yield filepath


def _target(file: Path | None) -> AbstractContextManager[TextIO]:
    if file is None:
        return nullcontext(sys.stdout)
    try:
        return file.open("x", encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"{file}: {error.strerror}") from error
