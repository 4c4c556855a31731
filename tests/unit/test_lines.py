"""Lines of a body: whole, numbered and limited in length."""

import io
from typing import Any

import pytest
from werkzeug.exceptions import ClientDisconnected

from api.forms.lines import READ_BYTES, Line, blocks

MAX_BYTES = 100


def lines(data: bytes, **options: Any) -> list[tuple[int, bytes | None]]:
    read = blocks(io.BytesIO(data), **{"content_length": None, "max_bytes": MAX_BYTES} | options)
    return [(line.number, line.data) for block in read for line in block]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n \n"])
def test_lines_are_numbered_with_and_without_final_newline(end: bytes) -> None:
    assert lines(b"one\n\n  \r\nfour" + end) == [(1, b"one"), (4, b"four")]


def test_an_empty_body_has_no_lines() -> None:
    assert lines(b"") == lines(b"\n\n") == []


def test_lines_may_span_reads() -> None:
    texts = [b"%d " % number + b"x" * (number % 90) for number in range(2000)]

    assert [data for _, data in lines(b"\n".join(texts))] == texts


@pytest.mark.parametrize("length", [MAX_BYTES + 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 10 * READ_BYTES])
@pytest.mark.parametrize("end", [b"", b"\nthree"])
def test_a_too_long_line_does_not_affect_others(length: int, end: bytes) -> None:
    read = lines(b"one\n" + b"x" * length + end)

    assert read == [(1, b"one"), (2, None)] + [(3, b"three")] * bool(end)


def test_a_line_of_the_maximum_length_is_accepted() -> None:
    assert lines(b"x" * MAX_BYTES + b"\n") == [(1, b"x" * MAX_BYTES)]


def test_each_read_is_one_block() -> None:
    body = b"".join(b"%d\n" % number for number in range(10_000))

    read: list[list[Line]] = list(blocks(io.BytesIO(body), content_length=None, max_bytes=MAX_BYTES))

    assert len(read) == -(-len(body) // READ_BYTES)


def test_a_truncated_body_raises_after_its_whole_lines() -> None:
    read = blocks(io.BytesIO(b"one\ntw"), content_length=20, max_bytes=MAX_BYTES)

    assert next(read) == [Line(1, b"one")]
    with pytest.raises(ClientDisconnected):
        next(read)
