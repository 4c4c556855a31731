"""The head of an HTTP response: interim responses are skipped, and its size is limited.

http.client skips status 100 only. Its limits on lines and on their number are too low for real image hosts, which send
long policies and many cookies, and it has no limit on both together.
"""

import http.client
from io import BufferedIOBase
from typing import Any, cast

HEADERS_MAX = 250
LINE_MAX_BYTES = 128 * 1024
HEAD_MAX_BYTES = 256 * 1024
INTERIM_MAX = 20

# http.client has no other way to set them. Every response of this process has these limits; none has a lower one.
http.client._MAXHEADERS = HEADERS_MAX  # type: ignore[attr-defined]  # noqa: SLF001
http.client._MAXLINE = LINE_MAX_BYTES  # type: ignore[attr-defined]  # noqa: SLF001


class FinalResponse(http.client.HTTPResponse):
    """A response whose `begin` skips interim responses (RFC 9110, 15.2), all within HEAD_MAX_BYTES."""

    def begin(self) -> None:
        """Read the head of the final response. Raises http.client.HTTPException if it exceeds a limit."""
        connection = self.fp
        self.fp = cast("Any", _Head(connection))
        try:
            super().begin()
            for _ in range(INTERIM_MAX):
                if not self._is_interim():
                    return
                # `begin` does nothing for a response that has headers.
                self.headers = self.msg = cast("Any", None)
                super().begin()
            message = f"more than {INTERIM_MAX} interim responses"
            raise http.client.HTTPException(message)
        finally:
            # `begin` closes a connection that does not answer in HTTP.
            if self.fp is not None:
                self.fp = connection

    def _is_interim(self) -> bool:
        # Nobody asked for another protocol.
        return 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS  # noqa: PLR2004 - the class 1xx


class _Head:
    """The lines of a head."""

    def __init__(self, connection: BufferedIOBase) -> None:
        self._connection = connection
        self._left = HEAD_MAX_BYTES

    def readline(self, limit: int) -> bytes:
        """Return the next line, or its first `limit` bytes."""
        line = self._connection.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            message = f"a head of more than {HEAD_MAX_BYTES} bytes"
            raise http.client.HTTPException(message)
        return line

    def close(self) -> None:
        self._connection.close()

    def flush(self) -> None:
        self._connection.flush()
