"""Lines of a body: whole, numbered, never held beyond their bound."""

import io
from typing import Any

import pytest
from werkzeug.exceptions import ClientDisconnected

from api.forms.lines import READ_BYTES, Line, blocks

MOST = 100


def lines(data: bytes, **options: Any) -> list[tuple[int, bytes | None]]:
    found = blocks(io.BytesIO(data), **{"content_length": None, "max_bytes": MOST} | options)
    return [(line.number, line.data) for block in found for line in block]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n \n"])
def test_lines_are_numbered_whether_or_not_the_last_one_is_ended(end: bytes) -> None:
    assert lines(b"one\n\n  \r\nfour" + end) == [(1, b"one"), (4, b"four")]


def test_a_body_without_a_line_has_none() -> None:
    assert lines(b"") == lines(b"\n\n") == []


def test_lines_are_whole_wherever_a_read_ends() -> None:
    texts = [b"%d " % number + b"x" * (number % 90) for number in range(2000)]

    assert [data for _, data in lines(b"\n".join(texts))] == texts


@pytest.mark.parametrize("length", [MOST + 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 10 * READ_BYTES])
@pytest.mark.parametrize("end", [b"", b"\nthree"])
def test_a_line_that_is_too_long_is_told_and_costs_the_others_nothing(length: int, end: bytes) -> None:
    found = lines(b"one\n" + b"x" * length + end)

    assert found == [(1, b"one"), (2, None)] + [(3, b"three")] * bool(end)


def test_a_line_of_the_longest_is_taken() -> None:
    assert lines(b"x" * MOST + b"\n") == [(1, b"x" * MOST)]


def test_what_was_read_together_is_a_block() -> None:
    body = b"".join(b"%d\n" % number for number in range(10_000))

    found: list[list[Line]] = list(blocks(io.BytesIO(body), content_length=None, max_bytes=MOST))

    assert len(found) == -(-len(body) // READ_BYTES)


def test_a_body_that_ends_before_its_time_is_told_after_its_whole_lines() -> None:
    found = blocks(io.BytesIO(b"one\ntw"), content_length=20, max_bytes=MOST)

    assert next(found) == [Line(1, b"one")]
    with pytest.raises(ClientDisconnected):
        next(found)
