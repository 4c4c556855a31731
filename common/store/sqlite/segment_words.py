"""Postings in a segment's file: groups one after the other, and a table of their offsets."""

import zlib
from collections.abc import Iterable, Sequence
from mmap import mmap
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.store.sqlite.postings import Postings

_Array: TypeAlias = NDArray[Any]

# A row of the table: where a group begins, the numbers of its images, words and postings, and its CRC-32.
TABLE_COLUMNS = 5
# The longest type is first, so that all arrays of a group are aligned.
_ALIGNMENT = 8


def write_groups(file: IO[bytes], groups: Iterable[Postings]) -> NDArray[np.int64]:
    """Write the groups, one at a time in memory, and return their table."""
    table = []
    for group in groups:
        file.write(b"\0" * (-file.tell() % _ALIGNMENT))
        begin, checksum = file.tell(), 0
        for array in (group.keys, group.words, group.starts, group.rows):
            data = np.ascontiguousarray(array).data
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        table.append((begin, len(group.keys), len(group.words), len(group.rows), checksum))
    return np.array(table, np.int64).reshape(-1, TABLE_COLUMNS)


def read_groups(mapped: mmap, table: NDArray[np.int64]) -> Sequence[Postings]:
    """Return the groups as views of the file's bytes. Raises ValueError if one is damaged."""
    return [_read_group(mapped, row) for row in table.tolist()]


def _read_group(mapped: mmap, row: Sequence[int]) -> Postings:
    begin, images, words, postings, checksum = row
    end, arrays = begin, []
    forms: list[tuple[str, int]] = [("<i8", images), ("<u4", words), ("<u4", words + 1), ("<u2", postings)]
    for dtype, count in forms:
        # frombuffer raises ValueError where the file is too short.
        array: _Array = np.frombuffer(mapped, dtype, count, end)
        arrays.append(array)
        end += array.nbytes
    if zlib.crc32(memoryview(mapped)[begin:end]) != checksum:
        raise ValueError("the postings are damaged")
    return Postings(*arrays)
