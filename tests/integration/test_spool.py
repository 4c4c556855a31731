"""A reply that never holds up the work that makes it, whether or not its client reads."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from api.spool import PIECE_BYTES, spooled

PART = b"x" * 1000


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = opened.enter_context(socket.create_connection(listener.getsockname()))
        server = opened.enter_context(listener.accept()[0])
        server.settimeout(10)
        yield server, client


def test_all_parts_go_out_in_order_whether_or_not_there_is_a_connection(pair: tuple[socket.socket, ...]) -> None:
    parts = [b"%d," % number for number in range(100_000)]

    for connection in (None, pair[0]):
        assert b"".join(spooled(parts, connection)) == b"".join(parts)


def test_what_a_client_takes_goes_out_at_once(pair: tuple[socket.socket, ...]) -> None:
    server, _ = pair
    made = 0

    def parts() -> Iterator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield PART

    next(spooled(parts(), server))

    assert made == 1


def test_a_client_that_reads_nothing_holds_up_no_work(pair: tuple[socket.socket, ...]) -> None:
    server, _ = pair
    made, sent_before_the_end, count = 0, 0, 100_000

    def parts() -> Iterator[bytes]:
        nonlocal made
        for _ in range(count):
            made += 1
            yield PART

    for piece in spooled(parts(), server):
        if made == count:
            break
        # Would this wait, it would raise after the connection's time-out.
        server.sendall(piece)
        sent_before_the_end += len(piece)

    assert made == count
    assert PIECE_BYTES <= sent_before_the_end < count * len(PART)


def test_a_client_that_reads_again_is_sent_what_waits(pair: tuple[socket.socket, ...]) -> None:
    server, client = pair
    parts = iter(spooled((PART for _ in range(100_000)), server))
    client.settimeout(10)

    sent = received = 0
    while sent < 50_000_000:
        piece = next(parts)
        server.sendall(piece)
        sent += len(piece)
        while received < sent:
            received += len(client.recv(1_000_000))

    assert received == sent
