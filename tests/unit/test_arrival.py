"""Requests while they come in: a thread begins with a request when it is there, however it is cut into pieces."""

from io import BytesIO
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.server.arrival import (
    BYTES_A_SECOND,
    CHUNKS_AT_FIRST,
    HEAD_BYTES,
    LINE_BYTES,
    Arriving,
    Chunks,
    Patience,
    Stage,
)

MOST = 1000
PLAIN = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
FORM = b"POST /add HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED_HEAD = b"POST /add HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAINLY_CHUNKED = CHUNKED_HEAD + b"3\r\nabc\r\n0\r\n\r\n"
CHUNKED = (
    b"POST /add HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b'3\r\nabc\r\nA;b="c"\r\n0\r\n\r\n45678\r\n00\r\nTrailer: d\r\n\r\n'
)
LINES = b"POST /add/batch HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson; charset=utf-8\r\n"


def arriving(*pieces: bytes) -> tuple[Arriving, bytes]:
    """Return a request after these pieces have come, and what is behind its end."""
    found = Arriving(BytesIO(), most_bytes=MOST)
    behind = b""
    for piece in pieces:
        assert found.stage is Stage.COMING
        behind = found.take(piece)
    return found, behind


@given(
    whole=st.sampled_from([PLAIN, FORM, PLAINLY_CHUNKED, CHUNKED]),
    cuts=st.sets(st.integers(1, 200)),
    behind=st.binary(max_size=9),
)
@example(whole=CHUNKED, cuts=set(range(200)), behind=b"")
@example(whole=PLAIN, cuts=set(), behind=PLAIN)
def test_a_request_is_there_with_its_last_byte_and_what_is_behind_is_the_next_ones(
    whole: bytes, cuts: set[int], behind: bytes
) -> None:
    places = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    pieces = [whole[start:end] for start, end in pairwise(places)]

    found, rest = arriving(*pieces[:-1], pieces[-1] + behind)

    assert found.stage is Stage.THERE
    assert (found.opened().read(), rest) == (whole, behind)


@given(end=st.integers(0, len(CHUNKED) - 1))
def test_a_request_that_is_cut_is_waited_for(end: int) -> None:
    found, _ = arriving(CHUNKED[:end])

    assert found.stage is Stage.COMING
    assert found.has_begun == (end > 0)


def test_lines_begin_with_their_head() -> None:
    found, _ = arriving(LINES + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab")

    assert found.stage is Stage.STREAMING
    assert found.opened().read().endswith(b"5\r\nab")


@pytest.mark.parametrize(
    "hopeless",
    [
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"GET /" + b"a" * HEAD_BYTES,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * LINE_BYTES,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * LINE_BYTES,
        b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na0\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: identity, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1000000000000000000\r\n\r\n",
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length : 1\r\n\r\n",
    ],
)
def test_what_is_refused_anyway_is_not_waited_for_and_nothing_is_read_behind_it(hopeless: bytes) -> None:
    found, behind = arriving(hopeless + PLAIN)

    assert found.stage is Stage.THERE
    assert not found.end_is_known
    assert not found.asks
    assert behind == b""


def test_nobody_is_asked_for_a_body_that_is_too_large() -> None:
    found, _ = arriving(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")

    assert b"xpect" not in found.opened().read()


@pytest.mark.parametrize("whole", [PLAIN, FORM, PLAINLY_CHUNKED])
def test_a_request_whose_end_is_plain_may_be_followed_by_another(whole: bytes) -> None:
    found, _ = arriving(whole)

    assert found.end_is_known


@pytest.mark.parametrize("more", [b'1;b="c"\r\na\r\n0\r\n\r\n', b"0\r\nTrailer: d\r\n\r\n"])
def test_nothing_follows_chunks_whose_end_others_may_see_elsewhere(more: bytes) -> None:
    found, _ = arriving(CHUNKED_HEAD + more)

    assert found.stage is Stage.THERE
    assert not found.end_is_known


@pytest.mark.parametrize("cut", [1, 7, 100_000])
def test_too_many_small_chunks_are_refused(cut: int) -> None:
    found = Arriving(BytesIO(), most_bytes=1_000_000)
    found.take(CHUNKED_HEAD)
    sent = 2 * CHUNKS_AT_FIRST * b"1\r\na\r\n"

    for place in range(0, len(sent), cut):
        if found.stage is Stage.COMING:
            found.take(sent[place : place + cut])

    assert found.stage is Stage.TOO_MANY_CHUNKS


def test_any_number_of_usual_chunks_is_read() -> None:
    found = Arriving(BytesIO(), most_bytes=10_000_000)
    found.take(CHUNKED_HEAD)

    found.take(5 * CHUNKS_AT_FIRST * (b"400\r\n" + 1024 * b"a" + b"\r\n") + b"0\r\n\r\n")

    assert found.stage is Stage.THERE


def test_a_chunked_body_that_is_too_large_is_not_waited_for() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"

    found, _ = arriving(head, b"a" * (MOST + HEAD_BYTES + 1))

    assert found.stage is Stage.THERE


def test_headers_without_end_are_told_to_be_too_large() -> None:
    found, _ = arriving(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * HEAD_BYTES)

    assert found.stage is Stage.TOO_LARGE_HEAD


def test_a_client_that_asks_whether_to_go_on_is_told_once() -> None:
    head = b"POST /add HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"

    found, _ = arriving(head)

    assert found.asks
    found.take(b"ab")
    assert b"xpect" not in found.opened().read()


def test_a_client_that_has_sent_everything_asks_nothing() -> None:
    found, _ = arriving(b"POST /add HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab")

    assert not found.asks


@given(data=st.binary(max_size=400))
def test_what_are_no_chunks_never_breaks_the_reader(data: bytes) -> None:
    assert 0 <= Chunks().take(data) <= len(data)


@given(data=st.binary(max_size=400))
def test_what_is_no_request_never_breaks_the_reader(data: bytes) -> None:
    _, behind = arriving(data)

    assert data.endswith(behind)


def test_patience_ends_with_silence_whatever_was_sent_before() -> None:
    patience = Patience(30)
    patience.waited(1, 1000 * BYTES_A_SECOND)

    patience.waited(30, 0)

    assert patience.left_s <= 0


def test_patience_ends_with_a_drip_and_never_with_a_client_that_keeps_up() -> None:
    dripping, steady = Patience(30), Patience(30)

    for _ in range(40):
        dripping.waited(1, 100)
        steady.waited(1, BYTES_A_SECOND)

    assert dripping.left_s <= 0
    assert steady.left_s == 30
