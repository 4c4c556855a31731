"""Options that several commands have."""

from typing import Annotated

import typer

from match_cli.exits import UsageProblem

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Collection = Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Collection of the images.")]
Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", metavar="KEY=VALUE", help="Only images with this metadata; may be repeated."),
]
Prefix = Annotated[
    str | None, typer.Option("--prefix", metavar="TEXT", help="Only images whose filepath begins with TEXT.")
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Requests at once.")]


def parse_filters(texts: list[str] | None) -> dict[str, object]:
    """Return the filters of `--filter KEY=VALUE`."""
    filters: dict[str, object] = {}
    for text in texts or []:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UsageProblem(f"--filter {text}: must be KEY=VALUE")
        filters[key] = value
    return filters
