"""Segments: immutable files with the signatures of many images, mapped into the memory of every process that searches.

A file has a magic number, the version of the format, the length and the CRC-32 of a header, and the header: JSON with
the segment's name and its sections. A section is an array with a type, a shape, an offset and a CRC-32. A reader
ignores sections that it does not know, so that columns can be added.
"""

import json
import mmap
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError
from common.store.sqlite.blocks import REST_BYTES, SIGNS_BYTES, Block, Keys

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
}

_Array: TypeAlias = NDArray[Any]


class UnusableSegmentError(StoreError):
    """A segment's file is absent, damaged or of another format."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A group of images that changed.

    `block` has the signatures of those that exist, `gone` the ascending keys of the others: deleted or featureless.
    """

    name: str
    block: Block
    gone: Keys

    @property
    def touched(self) -> Keys:
        """Return the ascending keys of all images that changed: earlier segments have older states of them."""
        keys = self.block.keys
        distinct = keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys
        return np.union1d(distinct, self.gone) if len(self.gone) else distinct


def write_segment(folder: Path, segment: Segment) -> None:
    """Write the segment's file durably; a process that is killed meanwhile leaves only a temporary file."""
    arrays: dict[str, _Array] = {
        "signs": segment.block.signs,
        "rest": segment.block.rest,
        "keys": segment.block.keys,
        "gone": segment.gone,
    }
    path = folder / f"{segment.name}{SUFFIX}"
    temporary = path.with_suffix(".tmp")
    header = _header(segment.name, arrays)
    with temporary.open("wb") as file:
        file.write(_PREFIX.pack(MAGIC, FORMAT, len(header), zlib.crc32(header)))
        file.write(header)
        for array in arrays.values():
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            file.write(np.ascontiguousarray(array).data)
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
        message = f"embedded store: segment {path}: {error}"
        raise UnusableSegmentError(message) from error
    return Segment(name, Block(arrays["keys"], arrays["signs"], arrays["rest"]), arrays["gone"])


def remove_segments(folder: Path, *, keep: Sequence[str]) -> None:
    """Delete all files in `folder` except those of the segments `keep`; a process that has one mapped keeps it."""
    names = {f"{name}{SUFFIX}" for name in keep}
    for path in folder.iterdir():
        if path.suffix in {SUFFIX, ".tmp"} and path.name not in names:
            with suppress(FileNotFoundError):
                path.unlink()


def _header(name: str, arrays: Mapping[str, _Array]) -> bytes:
    """Return the header, padded to its fixed length: the offsets depend on it."""
    sections, offset = {}, _PREFIX.size + _HEADER_BYTES
    for key, array in arrays.items():
        offset += -offset % _ALIGNMENT
        sections[key] = {
            "dtype": array.dtype.str,
            "shape": array.shape,
            "offset": offset,
            "crc32": zlib.crc32(np.ascontiguousarray(array).data),
        }
        offset += array.nbytes
    return json.dumps({"name": name, "sections": sections}).encode().ljust(_HEADER_BYTES)


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
