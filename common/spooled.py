"""Bytes that wait on disk, or in a small buffer, until a process has memory for them."""

import os
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, slots=True, eq=False)
class Spooled:
    """An open file with `size` bytes."""

    file: IO[bytes]
    size: int

    @classmethod
    def of(cls, file: IO[bytes]) -> "Spooled":
        """Return the whole file."""
        return cls(file, file.seek(0, os.SEEK_END))

    def read(self) -> bytes:
        """Return all bytes."""
        self.file.seek(0)
        return self.file.read()
