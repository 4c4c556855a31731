"""The messages between a process and its decoder process: an image in, its signatures or an error out.

A message is a list of parts: their number, their lengths, their bytes. Both processes run the same code, so there is no
version. A further result becomes a further part.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

import numpy as np

from common.errors import ImageError
from common.images.signature import LENGTH, Signature

# Neither end trusts the other with its memory. A reply is some hundred bytes long, a request as long as its image.
MAX_REPLY_BYTES = 1024 * 1024

_SIZE = struct.Struct("<II")


class Kind(Enum):
    """The first part of a reply."""

    READY = b"ready"
    SIGNED = b"signed"
    IMAGE_ERROR = b"image error"
    BUG = b"bug"


class DecoderBug(Exception):
    """The decoder process raised an unexpected exception; the text is its traceback."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SignedImage:
    """An image's `signatures`, and its full `width` and `height`.

    `pixels_sha256` identifies the pixels of a featureless image. It is empty for any other image: hashing takes a fifth
    of the time of decoding.
    """

    signatures: tuple[Signature, ...]
    width: int
    height: int
    pixels_sha256: bytes = b""


def pack(parts: Sequence[bytes]) -> bytes:
    """Return the head of a message, which its parts follow."""
    return struct.pack(f"<B{len(parts)}I", len(parts), *map(len, parts))


def read(stream: BinaryIO, *, max_bytes: int) -> list[bytes]:
    """Return the parts of the next message; raises EOFError if the stream ends before the message does."""
    [count] = _read(stream, 1)
    lengths = struct.unpack(f"<{count}I", _read(stream, 4 * count))
    if sum(lengths) > max_bytes:
        message = f"a message of {sum(lengths):,} bytes exceeds {max_bytes:,}"
        raise EOFError(message)
    return [_read(stream, length) for length in lengths]


def signed_parts(image: SignedImage) -> list[bytes]:
    """Return the parts of the reply with a result."""
    size = _SIZE.pack(image.width, image.height)
    return [Kind.SIGNED.value, size, image.pixels_sha256, b"".join(each.tobytes() for each in image.signatures)]


def error_parts(error: ImageError) -> list[bytes]:
    """Return the parts of the reply with an error of the image."""
    return [Kind.IMAGE_ERROR.value, error.code.encode(), str(error).encode()]


def result(parts: Sequence[bytes]) -> SignedImage:
    """Return the result in a reply; raises ImageError or DecoderBug if it has one of them instead."""
    kind = Kind(parts[0])
    if kind is Kind.IMAGE_ERROR:
        raise ImageError(parts[2].decode(), code=parts[1].decode())
    if kind is not Kind.SIGNED:
        raise DecoderBug(parts[1].decode(errors="replace"))
    width, height = _SIZE.unpack(parts[1])
    signatures = np.frombuffer(parts[3], np.int8).reshape(-1, LENGTH)
    return SignedImage(signatures=tuple(signatures), width=width, height=height, pixels_sha256=parts[2])


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("the other process closed the connection")
    return data
