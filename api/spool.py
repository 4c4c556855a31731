"""A reply that goes out while its request still comes in, and waits in a file while its client does not read."""

import os
import socket
from collections.abc import Iterable, Iterator
from select import POLLOUT, poll
from tempfile import SpooledTemporaryFile

MEMORY_BYTES = 256 * 1024
# Sent at once while the request still comes in: an eighth of the smallest send buffer that is usual.
PIECE_BYTES = 8 * 1024
REST_BYTES = 64 * 1024


def spooled(parts: Iterable[bytes], connection: socket.socket | None) -> Iterator[bytes]:
    """Return the bytes of the parts, in order, without ever holding up the work that makes them.

    Most clients read nothing before they have sent everything: would their reply not wait in a file meanwhile, both
    sides would wait for each other. Without a connection to ask, all of it waits.
    """
    sent = 0
    with SpooledTemporaryFile(max_size=MEMORY_BYTES) as waiting:
        for part in parts:
            waiting.seek(0, os.SEEK_END)
            waiting.write(part)
            waiting.seek(sent)
            while _takes(connection, PIECE_BYTES) and (piece := waiting.read(PIECE_BYTES)):
                yield piece
            sent = waiting.tell()
        yield from iter(lambda: waiting.read(REST_BYTES), b"")


def _takes(connection: socket.socket | None, size: int) -> bool:
    """Say whether so much can be sent at once.

    A socket counts as writable while a third of its buffer is free, of which bookkeeping may take a good part.
    """
    if connection is None or size > connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 8:
        return False
    # Not select(), which takes no descriptor above 1,023.
    looking = poll()
    looking.register(connection, POLLOUT)
    return any(event & POLLOUT for _, event in looking.poll(0))
