"""A request's body as lines, a block at a time, however long it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from werkzeug.exceptions import ClientDisconnected, HTTPException

# What is read at once becomes one block: a hundred lines or so.
READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A line by its number, counted from 1; `data` is None where it is longer than it may be."""

    number: int
    data: bytes | None


def blocks(body: IO[bytes], *, content_length: int | None, most_bytes: int) -> Iterator[list[Line]]:
    """Return the lines of the body that are not blank, as they arrive; none is held longer than `most_bytes`.

    Raises ClientDisconnected where the body ends before its time: what was cut off is no line.
    """
    number, begun, too_long, left = 0, b"", False, content_length
    while data := _read(body):
        left = None if left is None else left - len(data)
        first, *others = data.split(b"\n")
        ended = [begun + first, *others]
        begun = ended.pop()
        block = []
        for text in ended:
            number += 1
            if too_long or len(text) > most_bytes:
                block.append(Line(number, None))
            elif text.strip():
                block.append(Line(number, text))
            too_long = False
        if len(begun) > most_bytes:
            too_long, begun = True, b""
        yield block
    if left:
        raise ClientDisconnected
    if too_long or begun.strip():
        yield [Line(number + 1, None if too_long else begun)]


def _read(body: IO[bytes]) -> bytes:
    try:
        return body.read(READ_BYTES)
    except HTTPException:
        raise
    except Exception as error:
        # Chunks that are none, trailers that are none, silence: the server has errors of its own for each.
        raise ClientDisconnected from error
