"""Lists of images in files: JSON lines, CSV and Parquet."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from match_cli.discovery import Discovered, Source, Unreadable, absolute, file
from match_cli.exits import UsageProblem
from match_client.sources import is_url

# The columns of an image. `match export` writes `collection`, which an import takes from its option.
COLUMNS = frozenset({"url", "path", "filepath", "metadata", "collection"})
# Those of an export; its rows of uploaded images have a URL of null.
EXPORTED = frozenset({"url", "filepath", "collection"})
ROWS_IN_MEMORY = 1000

Row = Mapping[str, Any]


class InvalidRowError(Exception):
    """A row that names no image; the message has the reason."""


def read_table(path: Path, *, metadata_columns: Sequence[str] = ()) -> Iterator[Discovered]:
    """Yield the images of a file; `metadata_columns` are other columns to put into the metadata.

    A row has `url` or `path`, and may have `filepath` and `metadata`. A relative path is relative to the file.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageProblem(f"{path}: the suffix must be one of {', '.join(_READERS)}")
    try:
        for number, row in reader(path):
            try:
                yield _image(row, path.parent, metadata_columns)
            except InvalidRowError as error:
                yield Unreadable(source=f"{path}:{number}", code="bad_row", reason=str(error))
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror or error}") from error


def _image(row: Row | None, folder: Path, metadata_columns: Sequence[str]) -> Discovered:
    if row is None:
        raise InvalidRowError("the line is not a JSON object")
    if unknown := row.keys() - COLUMNS - set(metadata_columns):
        raise InvalidRowError(f"unknown column {min(unknown)}; --metadata {min(unknown)} puts it into the metadata")
    metadata = _metadata(row, metadata_columns)
    url, path = _text(row, "url"), _text(row, "path")
    if url is None and path is not None and is_url(path):
        url, path = path, None
    if url is None and path is None and row.keys() >= EXPORTED:
        raise InvalidRowError("the image was uploaded, and has no URL: add its file, or put its path into the row")
    if (url is None) == (path is None):
        raise InvalidRowError("the row must have either url or path")
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:16] if metadata else ""
    if url is None:
        source = absolute(str(folder / (path or "")))
        return file(source, _text(row, "filepath") or Path(source).as_posix(), metadata, version=digest)
    return Source(
        source=url,
        filepath=_text(row, "filepath") or url,
        version=f"{url} {digest}".rstrip(),
        size=len(url) + len(json.dumps(metadata)),
        metadata=metadata,
    )


def _text(row: Row, column: str) -> str | None:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise InvalidRowError(f"{column} must be a text")
    return value or None


def _metadata(row: Row, columns: Sequence[str]) -> dict[str, Any] | None:
    """Return the column `metadata`, an object or its JSON, with the other columns that have a value."""
    value = row.get("metadata")
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else None
        except ValueError:
            raise InvalidRowError("metadata is not valid JSON") from None
    if value is not None and not isinstance(value, dict):
        raise InvalidRowError("metadata must be a JSON object")
    others = {column: row[column] for column in columns if row.get(column) not in {None, ""}}
    return {**(value or {}), **others} or None


def _json_lines(path: Path) -> Iterator[tuple[int, Row | None]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                yield number, row if isinstance(row, dict) else None


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    # A byte-order mark is what spreadsheets write.
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            if None in row:
                raise UsageProblem(f"{path}:{reader.line_num}: the row has more columns than the first line")
            yield reader.line_num, row


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        from pyarrow import parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise UsageProblem("Parquet files need pyarrow: install match-client[parquet]") from None
    with parquet.ParquetFile(path) as table:
        number = 0
        for batch in table.iter_batches(batch_size=ROWS_IN_MEMORY):
            for row in batch.to_pylist():
                number += 1
                yield number, row


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
