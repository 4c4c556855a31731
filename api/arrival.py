"""A request while it comes in: which of its bytes are there, and whether those that are missing take too long.

What is read here decides one thing alone: when a thread begins with the request. What the request says is read by
gunicorn, from the same bytes, and by nobody else.
"""

import re
from enum import Enum, auto
from typing import IO

from api.reading import LINE_TYPES

# gunicorn reads up to 100 headers of 8,190 bytes each; nobody sends as much.
HEAD_BYTES = 64 * 1024
# Of a line between chunks, and of the trailers after the last one.
LINE_BYTES = 8 * 1024
# Below a slow mobile connection.
BYTES_A_SECOND = 16 * 1024

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_FRAMING = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)
_STREAM = re.compile(
    rb"\r\ncontent-type:[ \t]*(?:%s)[ \t]*[;\r]" % b"|".join(re.escape(kind.encode()) for kind in LINE_TYPES),
    re.IGNORECASE,
)
_EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_SIZE = re.compile(rb"([0-9a-f]{1,16})[ \t]*(;.*)?", re.IGNORECASE)


class Patience:
    """How much longer a client is waited for.

    It begins with so many seconds, and each second's worth of bytes gives one back, never more than it began with: a
    client that sends nothing is given up after `full_s`, one that sends little soon after, one that keeps up never.
    """

    def __init__(self, full_s: float) -> None:
        self._full_s = full_s
        self.left_s = full_s

    def waited(self, seconds: float, received: int) -> None:
        """Note how long the client was waited for, and how many bytes it sent in that time."""
        self.left_s = min(self._full_s, self.left_s - seconds + received / BYTES_A_SECOND)


class Stage(Enum):
    """How far a request has come in."""

    # Nothing, or a part.
    COMING = auto()
    # All of it; or what makes clear that gunicorn refuses it, and needs no more for that.
    THERE = auto()
    # Its head, and of its body, which is read as a stream, what has come so far.
    STREAMING = auto()
    TOO_LARGE_HEAD = auto()


class Arriving:
    """One request, kept in `file`; a body of up to `most_bytes` is waited for."""

    def __init__(self, file: IO[bytes], *, most_bytes: int) -> None:
        self._file = file
        self._most_bytes = most_bytes
        self._head = bytearray()
        self._missing: int | None = None
        self._chunks: Chunks | None = None
        self.stage = Stage.COMING
        # Whether its client waits to be told to go on.
        self.asks = False
        self.size = 0

    @property
    def has_begun(self) -> bool:
        """Say whether any of it has come."""
        return bool(self._head) or self.size > 0

    def take(self, data: bytes) -> bytes:
        """Take what has come; return what is behind the request's end."""
        if self._missing is not None:
            return self._take_body(self._missing, data)
        self._head += data
        return self._take_head()

    def opened(self) -> IO[bytes]:
        """Return its bytes from the first one on."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Give back what its bytes took."""
        self._file.close()

    def _take_head(self) -> bytes:
        end = self._head.find(b"\r\n\r\n")
        if end >= 0:
            head, rest = bytes(self._head[: end + 4]), bytes(self._head[end + 4 :])
            return self._begin_body(head, rest)
        # gunicorn refuses a line that ends otherwise, and a first line that is too long, without the rest.
        if self._head.count(b"\n") != self._head.count(b"\r\n"):
            self._enough(self._head)
        elif len(self._head) > HEAD_BYTES and b"\r\n" in self._head:
            self.stage = Stage.TOO_LARGE_HEAD
        elif len(self._head) > HEAD_BYTES:
            self._enough(self._head)
        return b""

    def _begin_body(self, head: bytes, rest: bytes) -> bytes:
        length, is_chunked = _LENGTH.search(head), _CHUNKED.search(head) is not None
        framings = len(_FRAMING.findall(head))
        missing = int(length[1]) if length else 0
        if _STREAM.search(head):
            self._enough(head + rest, Stage.STREAMING)
        elif framings > 1 or framings > is_chunked + (length is not None) or missing > self._most_bytes:
            # It is refused by what it says of its body.
            self._enough(head + rest)
        else:
            self._missing = missing
            self._chunks = Chunks() if is_chunked else None
            expects = _EXPECTS.search(head)
            # Who asks is told to go on here, and gunicorn needs not tell it again.
            self._keep(_EXPECTS.sub(b"", head, count=1) if expects else head)
            behind = self._take_body(missing, rest)
            self.asks = expects is not None and b" HTTP/1.1\r\n" in head and self.stage is Stage.COMING
            return behind
        return b""

    def _take_body(self, missing: int, data: bytes) -> bytes:
        if self._chunks is not None:
            taken = self._chunks.take(data)
            has_ended = self._chunks.have_ended or self.size + taken > self._most_bytes + HEAD_BYTES
        else:
            taken = min(len(data), missing)
            self._missing = missing - taken
            has_ended = taken == missing
        self._keep(data[:taken])
        if has_ended:
            self.stage = Stage.THERE
        return data[taken:]

    def _enough(self, data: bytes | bytearray, stage: Stage = Stage.THERE) -> None:
        self._keep(data)
        self.stage = stage

    def _keep(self, data: bytes | bytearray) -> None:
        self._file.write(data)
        self.size += len(data)


class Chunks:
    """Where a chunked body ends (RFC 9112, section 7.1); it ends at once where it is none."""

    def __init__(self) -> None:
        self.have_ended = False
        self._line = bytearray()
        self._skip = 0
        self._in_trailers = False

    def take(self, data: bytes) -> int:
        """Return how many of these bytes belong to the body."""
        place = 0
        while place < len(data) and not self.have_ended:
            if self._skip:
                step = min(self._skip, len(data) - place)
                self._skip -= step
            else:
                end = data.find(b"\n", place)
                step = (end + 1 if end >= 0 else len(data)) - place
                self._line += data[place : place + step]
                self._look(has_line=end >= 0)
            place += step
        return place

    def _look(self, *, has_line: bool) -> None:
        if len(self._line) > LINE_BYTES:
            self.have_ended = True
        elif has_line:
            if self._in_trailers:
                # They are kept, as their lengths count together.
                self.have_ended = self._line == b"\r\n" or self._line.endswith(b"\r\n\r\n")
                return
            line = bytes(self._line).rstrip(b"\r\n")
            self._line.clear()
            self._begin_chunk(_SIZE.fullmatch(line))

    def _begin_chunk(self, size: re.Match[bytes] | None) -> None:
        if size is None:
            self.have_ended = True
        elif int(size[1], 16) == 0:
            self._in_trailers = True
        else:
            # And the end of its line.
            self._skip = int(size[1], 16) + 2
