"""The body of a response, read within a limit on its size, also of what it is decompressed to."""

import gzip
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol, cast

from urllib3 import BaseHTTPResponse

from common.net.connector import fetch_failed
from common.net.watchdog import Download

READ_BYTES = 64 * 1024
# Enough for the magic number of every image format.
SNIFF_BYTES = 512
_GZIP = {"gzip", "x-gzip"}
_OTHER_COMPRESSIONS = {"deflate", "compress", "x-compress", "br", "zstd"}


class Reserve(Protocol):
    """Reserves memory for a body, and releases what it reserved before."""

    def __call__(self, size: int, *, within_s: float) -> None:
        """Wait at most `within_s` seconds for `size` bytes."""


def unlimited(size: int, *, within_s: float) -> None:
    """Reserve nothing."""


@dataclass(frozen=True, slots=True)
class BodyRules:
    """The limits on a body: at most `max_bytes`, and first bytes that `accepts` returns True for."""

    max_bytes: int
    accepts: Callable[[bytes], bool]

    def read(self, response: BaseHTTPResponse, host: str, reserve: Reserve, download: Download) -> bytes:
        """Return the body. Raises FetchError, an exception of the connection, or one of `reserve`.

        `reserve` is called with the bytes that the body may have, and may wait for half of the time that is left; and
        with their real number after that.
        """
        is_gzip = _is_gzip(response, host)
        declared = response.length_remaining
        _check_size(declared or 0, self.max_bytes, host, is_whole=declared is not None)
        reserve(self.max_bytes if declared is None or is_gzip else declared, within_s=download.left_s / 2)
        raw = _Raw(response, self.max_bytes, host, download)
        body = self._read_gzip(raw, host) if is_gzip else self._read_all(raw.read, host)
        reserve(len(body), within_s=0)
        return body

    def _read_gzip(self, raw: "_Raw", host: str) -> bytes:
        """Return the decompressed body: object stores keep some files as gzip, and send no other form."""
        try:
            # GzipFile needs only `read` of a file. A bomb costs at most the memory of a piece beyond the limit.
            with gzip.GzipFile(fileobj=cast("BytesIO", raw), mode="rb") as unpacked:
                return self._read_all(unpacked.read1, host)
        except EOFError as error:
            raise fetch_failed("short_body", host, "ended its response early", transient=True) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise fetch_failed("encoded_body", host, "sent a compressed body that cannot be read") from error

    def _read_all(self, read: Callable[[int], bytes], host: str) -> bytes:
        # A list of pieces would take 40 times the memory when a server sends single bytes, and a bytearray a copy.
        body = BytesIO()
        while body.tell() < SNIFF_BYTES and self._read_piece(read, body, host):
            pass
        if not self.accepts(bytes(body.getbuffer()[:SNIFF_BYTES])):
            raise fetch_failed("not_an_image", host, "sent data that is not an image")
        while self._read_piece(read, body, host):
            pass
        return body.getvalue()

    def _read_piece(self, read: Callable[[int], bytes], body: BytesIO, host: str) -> bool:
        """Read a piece of the body; return False at its end."""
        piece = read(READ_BYTES)
        body.write(piece)
        _check_size(body.tell(), self.max_bytes, host)
        return bool(piece)


class _Raw:
    """The bytes of a response as they arrive; at most `max_bytes`, since compressed ones may decompress to nothing."""

    def __init__(self, response: BaseHTTPResponse, max_bytes: int, host: str, download: Download) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self._host = host
        self._download = download
        self._size = 0
        download.received(0)

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""
        piece = self._response.read1(size)
        self._size += len(piece)
        if piece:
            self._download.received(self._size)
        _check_size(self._size, self._max_bytes, self._host)
        return piece


def _check_size(size: int, max_bytes: int, host: str, *, is_whole: bool = False) -> None:
    """Raise FetchError for more than `max_bytes`."""
    if size > max_bytes:
        at_least = "" if is_whole else "at least "
        limit = f"the limit is {max_bytes:,} (MATCH_MAX_IMAGE_BYTES)"
        raise fetch_failed("too_large", host, f"sends {at_least}{size:,} bytes; {limit}")


def _is_gzip(response: BaseHTTPResponse, host: str) -> bool:
    """Return whether the body is compressed by gzip. Raises FetchError if it is encoded in another way."""
    # Other values are only labels, such as the "aws-chunked" that object stores keep: the bytes are unencoded.
    encodings = re.split(r"[,\s]+", response.headers.get("content-encoding", "").lower())
    compressions = [encoding for encoding in encodings if encoding in _GZIP | _OTHER_COMPRESSIONS]
    if len(compressions) > 1 or not _OTHER_COMPRESSIONS.isdisjoint(compressions):
        raise fetch_failed("encoded_body", host, "sent a compressed body")
    if response.headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise fetch_failed("bad_response", host, "sent an unknown transfer encoding")
    return bool(compressions)
