"""`match list`, `match export` and `match delete`: the stored images."""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, TextIO

import typer

from match_cli import options, output
from match_cli.context import client_of
from match_cli.discovery import STDIN
from match_cli.exits import UsageProblem
from match_client import Image, Match, NotFound

# Records that are in memory at once.
EXPORTED = 200


def list_(
    context: typer.Context,
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of names.")] = None,
    filters: options.Filters = None,
    collection: options.Collection = None,
    is_json: options.Json = False,
) -> None:
    """List the names of stored images, oldest first."""
    with client_of(context) as match:
        names = match.list(filter=options.parse_filters(filters), collection=collection)
        for name in islice(names, limit):
            (output.document if is_json else output.line)(name)


def export(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A new file; default: stdout.")] = None,
    *,
    filters: options.Filters = None,
    collection: options.Collection = None,
    jobs: options.Jobs = 4,
    is_json: options.Json = False,
) -> None:
    """Write a JSON line for each stored image: collection, filepath, metadata and URL.

    `match import` reads the file. Images that were uploaded have no URL.
    """
    with client_of(context) as match, _target(file) as target:
        number = 0
        names = match.list(filter=options.parse_filters(filters), collection=collection)
        for image in images(match, names, collection=collection, jobs=jobs):
            number += 1
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
        output.document({"exported": number})
    else:
        output.message(f"{number} exported")


def images(match: Match, names: Iterable[str], *, collection: str | None, jobs: int) -> Iterator[Image]:
    """Yield the records of names, in order; a name that was deleted meanwhile is left out."""

    def record(name: str) -> Image | None:
        try:
            return match.image(name, collection=collection)
        except NotFound:
            return None

    iterator = iter(names)
    with ThreadPoolExecutor(jobs) as threads:
        while some := list(islice(iterator, EXPORTED)):
            yield from (image for image in threads.map(record, some) if image is not None)


def delete(
    context: typer.Context,
    filepaths: Annotated[list[str], typer.Argument(metavar="FILEPATH", help="Names; - reads them from stdin.")],
    *,
    collection: options.Collection = None,
    is_json: options.Json = False,
) -> None:
    """Delete images by their names. An unknown name is not an error."""
    number = 0

    def names() -> Iterator[str]:
        nonlocal number
        for name in _expand(filepaths):
            number += 1
            yield name

    with client_of(context) as match:
        match.delete(names(), collection=collection)
    if is_json:
        output.document({"deleted": number})
    else:
        output.message(f"{number} deleted")


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
