"""The lines of a request's body, read in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from werkzeug.exceptions import ClientDisconnected, HTTPException

# One read becomes one block: about a hundred lines.
READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A line and its number, counted from 1; `data` is None for a line that is too long."""

    number: int
    data: bytes | None


def blocks(body: IO[bytes], *, content_length: int | None, max_bytes: int) -> Iterator[list[Line]]:
    """Yield the lines of the body that are not blank; memory holds at most `max_bytes` of a line.

    Raises ClientDisconnected for a body that ends early: the rest of it is not a line.
    """
    number, partial, too_long, left = 0, b"", False, content_length
    while data := _read(body):
        left = None if left is None else left - len(data)
        first, *others = data.split(b"\n")
        complete = [partial + first, *others]
        partial = complete.pop()
        block = []
        for text in complete:
            number += 1
            if too_long or len(text) > max_bytes:
                block.append(Line(number, None))
            elif text.strip():
                block.append(Line(number, text))
            too_long = False
        if len(partial) > max_bytes:
            too_long, partial = True, b""
        yield block
    if left:
        raise ClientDisconnected
    if too_long or partial.strip():
        yield [Line(number + 1, None if too_long else partial)]


def _read(body: IO[bytes]) -> bytes:
    try:
        return body.read(READ_BYTES)
    except HTTPException:
        raise
    except Exception as error:
        # The server has its own errors for malformed chunks, malformed trailers and time-outs.
        raise ClientDisconnected from error
