"""The output of commands: results to the standard output, messages and progress to the standard error."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TextIO
from unicodedata import category

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from match_client import MatchError

errors = Console(stderr=True, highlight=False)


def message(text: str) -> None:
    """Print a line for people to the standard error; control characters, as of file names, are escaped."""
    errors.print(escape(printable(text)), soft_wrap=True)


def printable(text: str) -> str:
    r"""Return the text with control characters as escapes: a terminal obeys them.

    >>> print(printable("red\x1b[31m.jpg"))
    red\x1b[31m.jpg
    """
    return "".join(char.encode("unicode_escape").decode() if category(char) == "Cc" else char for char in text)


def error(error: MatchError) -> None:
    """Print an error of the service for people."""
    hint = f"; request {error.request_id}" if error.request_id else ""
    message(f"match: {error} ({error.code}{hint})")


def line(text: str, *, to: TextIO | None = None) -> None:
    """Print a line of a result, by default to the standard output."""
    (to or sys.stdout).write(f"{text}\n")


def document(value: object, *, to: TextIO | None = None) -> None:
    """Print a value as one line of JSON."""
    line(json.dumps(value, ensure_ascii=False, default=_plain), to=to)


def plain(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the client's results
    """Return a result of the client as a dictionary."""
    return asdict(value)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; a number is on the right."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    lines = [list(row) for row in rows]
    for column, heading in enumerate(headings):
        is_number = bool(lines) and all(isinstance(row[column], int | float) for row in lines)
        shown.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in lines:
        shown.add_row(*(escape(_cell(value)) for value in row))
    Console(highlight=False, file=sys.stdout).print(shown)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON")
