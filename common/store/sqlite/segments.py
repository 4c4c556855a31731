"""Segments: immutable files with signatures and words of many images, mapped into the memory of all that search.

A file has a magic number, the version of the format, the length and the CRC-32 of a header, and the header: JSON with
the segment's name and its sections. A section is an array with a type, a shape, an offset and a CRC-32. A reader
ignores sections that it does not know, so that columns can be added. The section `groups` is the table of the postings,
which are several times as large as the signatures: they are read and checked at the first lookup by words.
"""

import functools
import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError
from common.store.sqlite.blocks import REST_BYTES, SIGNS_BYTES, Block, Keys
from common.store.sqlite.postings import Postings
from common.store.sqlite.segment_words import TABLE_COLUMNS, read_groups, write_groups

SUFFIX = ".segment"
MAGIC = b"MATCHSEG"
FORMAT = 2
_PREFIX = struct.Struct("<8sIII")
# Sections begin at whole cache lines.
_ALIGNMENT = 64
# Space for some thirty sections.
_HEADER_BYTES = 4096 - _PREFIX.size
# Type and shape of a row of each section that this version reads.
_SECTIONS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "signs": ("|u1", (SIGNS_BYTES,)),
    "rest": ("|u1", (REST_BYTES,)),
    "keys": ("<i8", ()),
    "gone": ("<i8", ()),
    "groups": ("<i8", (TABLE_COLUMNS,)),
}

_Array: TypeAlias = NDArray[Any]


class UnusableSegmentError(StoreError):
    """A segment's file is absent, damaged or of another format."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A group of images that changed.

    `block` has the signatures of those that exist, `gone` the ascending keys of the others: deleted or featureless.
    `words` returns the postings of those with local features. It raises UnusableSegmentError if they are damaged.
    """

    name: str
    block: Block
    gone: Keys
    words: Callable[[], Sequence[Postings]] = tuple

    @property
    def touched(self) -> Keys:
        """Return the ascending keys of all images that changed: earlier segments have older states of them."""
        keys = self.block.keys
        distinct = keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys
        return np.union1d(distinct, self.gone) if len(self.gone) else distinct


def write_segment(folder: Path, segment: Segment, words: Iterable[Postings] = ()) -> None:
    """Write the segment's file durably; a process that is killed meanwhile leaves only a temporary file.

    The postings `words` are written one at a time, because together they may be larger than the memory.
    """
    path = folder / f"{segment.name}{SUFFIX}"
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(b"\0" * (_PREFIX.size + _HEADER_BYTES))
        table = write_groups(file, words)
        sections = {
            "groups": _write_section(file, table),
            "signs": _write_section(file, segment.block.signs),
            "rest": _write_section(file, segment.block.rest),
            "keys": _write_section(file, segment.block.keys),
            "gone": _write_section(file, segment.gone),
        }
        header = json.dumps({"name": segment.name, "sections": sections}).encode().ljust(_HEADER_BYTES)
        file.seek(0)
        file.write(_PREFIX.pack(MAGIC, FORMAT, len(header), zlib.crc32(header)))
        file.write(header)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    _sync_folder(folder)


def open_segment(folder: Path, name: str) -> Segment:
    """Map the segment's file; raises UnusableSegmentError unless it is complete and undamaged."""
    path = folder / f"{name}{SUFFIX}"
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        sections = _read_header(mapped, name)
        arrays = {key: _section(mapped, sections[key], *form) for key, form in _SECTIONS.items()}
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise _unusable(path, error) from error
    block = Block(arrays["keys"], arrays["signs"], arrays["rest"])
    return Segment(name, block, arrays["gone"], functools.cache(lambda: _words(path, mapped, arrays["groups"])))


def remove_segments(folder: Path, *, keep: Sequence[str]) -> None:
    """Delete all files in `folder` except those of the segments `keep`; a process that has one mapped keeps it."""
    names = {f"{name}{SUFFIX}" for name in keep}
    for path in folder.iterdir():
        if path.suffix in {SUFFIX, ".tmp"} and path.name not in names:
            with suppress(FileNotFoundError):
                path.unlink()


def _words(path: Path, mapped: mmap.mmap, table: NDArray[np.int64]) -> Sequence[Postings]:
    try:
        return read_groups(mapped, table)
    except ValueError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> UnusableSegmentError:
    return UnusableSegmentError(f"embedded store: segment {path}: {error}")


def _write_section(file: IO[bytes], array: _Array) -> dict[str, Any]:
    """Write the array at the next cache line, and return its description."""
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    offset, data = file.tell(), np.ascontiguousarray(array).data
    file.write(data)
    return {"dtype": array.dtype.str, "shape": array.shape, "offset": offset, "crc32": zlib.crc32(data)}


def _read_header(mapped: mmap.mmap, name: str) -> dict[str, Any]:
    """Return the sections' descriptions."""
    magic, version, length, checksum = _PREFIX.unpack_from(mapped)
    header = mapped[_PREFIX.size : _PREFIX.size + length]
    if (magic, version, checksum) != (MAGIC, FORMAT, zlib.crc32(header)):
        raise ValueError("the header is damaged or has another version")
    described: dict[str, Any] = json.loads(header)
    if described["name"] != name:
        raise ValueError("the file belongs to another segment")
    sections: dict[str, Any] = described["sections"]
    return sections


def _section(mapped: mmap.mmap, described: Mapping[str, Any], dtype: str, row: tuple[int, ...]) -> _Array:
    shape = tuple(described["shape"])
    if described["dtype"] != dtype or shape[1:] != row:
        raise ValueError("a section has another form")
    count = int(np.prod(shape, dtype=np.int64))
    # frombuffer raises ValueError where the file is too short.
    array: _Array = np.frombuffer(mapped, dtype, count, described["offset"]).reshape(shape)
    if zlib.crc32(array.data) != described["crc32"]:
        raise ValueError("a section is damaged")
    return array


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
