"""`match add` and `match import`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from match_cli import adding, options
from match_cli.discovery import STDIN, Discovered, Naming, absolute, discover, expand
from match_cli.exits import UsageProblem
from match_cli.sending import Settings
from match_cli.tables import read_table
from match_client.sources import is_url

# The service's default, MATCH_MAX_IMAGE_BYTES.
MAX_BYTES = 64 * 1024 * 1024

MaxBytes = Annotated[int, typer.Option(min=1, help="Shrink larger files before they are sent.")]
Again = Annotated[bool, typer.Option("--again", help="Send also what earlier runs stored.")]
Wait = Annotated[bool, typer.Option(help="Wait until all images are stored.")]


def add(
    context: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH|URL", help="Files, folders, patterns, URLs; - reads them from stdin.")
    ],
    *,
    relative_to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Name files by their path in this folder.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Text before each name.")] = "",
    collection: options.Collection = None,
    jobs: options.Jobs = 4,
    max_bytes: MaxBytes = MAX_BYTES,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete images that earlier runs added from files that no longer exist.")
    ] = False,
    again: Again = False,
    wait: Wait = True,
    is_json: options.Json = False,
) -> None:
    """Add images. A second run sends only what is new, changed or failed.

    A file is named by its absolute path, a URL by itself.
    """
    naming = Naming(relative_to=None if relative_to is None else Path(absolute(str(relative_to))), prefix=prefix)

    def images() -> Iterator[Discovered]:
        return discover(expand(paths, sys.stdin), naming)

    adding.run(
        context,
        images,
        adding.Run(
            settings=Settings(jobs=jobs, max_bytes=max_bytes, is_again=again, collection=collection),
            is_waiting=wait,
            is_json=is_json,
            folders=_folders(paths) if prune else (),
        ),
        is_countable=STDIN not in paths,
    )


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of rows: .jsonl, .csv or .parquet.")],
    *,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="COLUMN", help="A column to put into the metadata; may be repeated."),
    ] = None,
    collection: options.Collection = None,
    jobs: options.Jobs = 4,
    max_bytes: MaxBytes = MAX_BYTES,
    again: Again = False,
    wait: Wait = True,
    is_json: options.Json = False,
) -> None:
    """Add the images that a file lists. A second run sends only what is new, changed or failed.

    A row has the column url or path, and may have filepath and metadata, a JSON object.
    An index of image-match or dsys/match is imported by python -m common.store.import_elasticsearch URL INDEX.
    """
    if not file.is_file():
        raise UsageProblem(f"{file}: {'a folder, not a table' if file.is_dir() else 'no such file'}")

    def images() -> Iterator[Discovered]:
        return read_table(file, metadata_columns=metadata or [])

    adding.run(
        context,
        images,
        adding.Run(
            settings=Settings(jobs=jobs, max_bytes=max_bytes, is_again=again, collection=collection),
            is_waiting=wait,
            is_json=is_json,
        ),
        is_countable=True,
    )


def _folders(paths: list[str]) -> list[str]:
    """Return the folders to prune; an argument that vanished is an error, since all its images would be deleted."""
    missing = [path for path in paths if path != STDIN and not is_url(path) and not Path(path).expanduser().exists()]
    if missing:
        raise UsageProblem(f"--prune: {missing[0]} does not exist")
    return [absolute(path) for path in paths if Path(path).expanduser().is_dir()]
