"""A request while it comes in: which of its bytes are there, and whether those that are missing take too long.

What is read here decides when a thread begins with the request, and where the next one on its connection begins. What
the request says is read by gunicorn, from the same bytes, and by nobody else: where the two might read the end of a
request differently, there is no next one.
"""

import re
from enum import Enum, auto
from typing import IO

from api.forms.reading import LINE_TYPES

# gunicorn reads up to 100 headers of 8,190 bytes each; nobody sends as much.
HEAD_BYTES = 64 * 1024
# Of a line between chunks, and of the trailers after the last one.
LINE_BYTES = 8 * 1024
# Below a slow mobile connection.
BYTES_A_SECOND = 16 * 1024
# Each chunk is work, here and again in the thread, however few bytes it brings; usual clients send 1 KiB and more.
CHUNKS_AT_FIRST = 1000
BYTES_A_CHUNK = 512

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_FRAMING = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)
_STREAM = re.compile(
    rb"\r\ncontent-type:[ \t]*(?:%s)[ \t]*[;\r]" % b"|".join(re.escape(kind.encode()) for kind in LINE_TYPES),
    re.IGNORECASE,
)
_EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_SIZE = re.compile(rb"([0-9a-f]{1,16})([ \t]*;.*)?\r\n", re.IGNORECASE)


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
    TOO_MANY_CHUNKS = auto()


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
        # Whether what comes behind it may be a part of it.
        self.end_is_known = True
        self._kept_bytes = 0

    @property
    def size(self) -> int:
        """Return how many bytes of it are here."""
        return len(self._head) + self._kept_bytes

    @property
    def has_begun(self) -> bool:
        """Say whether any of it has come."""
        return self.size > 0

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
            self._head.clear()
            return self._begin_body(head, rest)
        if _is_refused(self._head):
            self._enough(self._head)
            self._head.clear()
        elif len(self._head) > HEAD_BYTES:
            self.stage = Stage.TOO_LARGE_HEAD
        return b""

    def _begin_body(self, head: bytes, rest: bytes) -> bytes:
        length, is_chunked = _LENGTH.search(head), _CHUNKED.search(head) is not None
        framings = len(_FRAMING.findall(head))
        missing = int(length[1]) if length else 0
        is_unclear = framings > 1 or framings > is_chunked + (length is not None) or _is_refused(head)
        if _STREAM.search(head):
            self._enough(head + rest, Stage.STREAMING)
        elif is_unclear or missing > self._most_bytes:
            # It is refused by what it says of its body, and nobody is told to send that.
            self._enough(_EXPECTS.sub(b"", head) + rest)
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
            return self._take_chunks(self._chunks, data)
        taken = min(len(data), missing)
        self._missing = missing - taken
        self._keep(data[:taken])
        if taken == missing:
            self.stage = Stage.THERE
        return data[taken:]

    def _take_chunks(self, chunks: "Chunks", data: bytes) -> bytes:
        taken = chunks.take(data)
        if chunks.are_too_many:
            self._enough(data, Stage.TOO_MANY_CHUNKS)
        elif chunks.are_broken or (not chunks.have_ended and self.size + taken > self._most_bytes + HEAD_BYTES):
            self._enough(data)
        else:
            self._keep(data[:taken])
            self.end_is_known = chunks.are_plain
            if chunks.have_ended:
                self.stage = Stage.THERE
            return data[taken:]
        return b""

    def _enough(self, data: bytes | bytearray, stage: Stage = Stage.THERE) -> None:
        """Wait for no more of it; where it ends is not known."""
        self._keep(data)
        self.stage = stage
        self.end_is_known = False

    def _keep(self, data: bytes | bytearray) -> None:
        self._file.write(data)
        self._kept_bytes += len(data)


def _is_refused(head: bytes | bytearray) -> bool:
    """Say whether gunicorn refuses what came of a head: a line ends otherwise, or the first one is too long."""
    return head.count(b"\n") != head.count(b"\r\n") or (len(head) > HEAD_BYTES and b"\r\n" not in head[:HEAD_BYTES])


class Chunks:
    """Where a chunked body ends (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        self.have_ended = False
        self.are_broken = False
        # Without extensions and trailers, of which each reader has an opinion of its own.
        self.are_plain = True
        self._begun = 0
        self._size = 0
        self._line = bytearray()
        self._skip = 0
        # Behind the bytes of a chunk is the end of a line.
        self._awaits_end = False
        self._trailers: int | None = None

    @property
    def are_too_many(self) -> bool:
        """Say whether they are so small that it takes too many of them."""
        return self._begun > CHUNKS_AT_FIRST + self._size // BYTES_A_CHUNK

    def take(self, data: bytes) -> int:
        """Return how many of these bytes belong to the body, as far as it is one."""
        place = 0
        while place < len(data) and not (self.have_ended or self.are_broken or self.are_too_many):
            if self._skip:
                step = min(self._skip, len(data) - place)
                self._skip -= step
            else:
                end = data.find(b"\n", place)
                step = (end + 1 if end >= 0 else len(data)) - place
                self._line += data[place : place + step]
                self._look(has_line=end >= 0)
            place += step
            self._size += step
        return place

    def _look(self, *, has_line: bool) -> None:
        self.are_broken = len(self._line) > LINE_BYTES
        if has_line and not self.are_broken:
            line = bytes(self._line)
            self._line.clear()
            self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        if self._trailers is not None:
            self._read_trailer(self._trailers, line)
        elif self._awaits_end:
            self._awaits_end = False
            self.are_broken = line != b"\r\n"
        elif size := _SIZE.fullmatch(line):
            self._begin_chunk(int(size[1], 16))
            self.are_plain &= size[2] is None
        else:
            self.are_broken = True

    def _begin_chunk(self, size: int) -> None:
        self._begun += 1
        self._skip = size
        self._awaits_end = size > 0
        self._trailers = None if size else 0

    def _read_trailer(self, before: int, line: bytes) -> None:
        """Read a line behind the last chunk; their lengths count together."""
        self._trailers = before + len(line)
        self.have_ended = line == b"\r\n"
        self.are_plain &= self.have_ended
        self.are_broken = self._trailers > LINE_BYTES
