"""The messages between a process and its decoder process: an image in, its signatures or an error out.

A message is a list of up to MAX_PARTS parts: their number, their lengths, their bytes. Both processes run the same
code, so there is no version. A further result becomes a further part.
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, pairwise

import numpy as np

from common.errors import ImageError
from common.images.signature import LENGTH, Signature

MAX_PARTS = 7
# A reply is some hundred bytes long. A decoder that an image controls gets no more memory of its owner.
MAX_REPLY_BYTES = 1024 * 1024

_HEAD = struct.Struct(f"<{1 + MAX_PARTS}I")
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

    The first signature is that of the whole image, a second one that of the image without its flat margins.
    `pixels_sha256` identifies the pixels of a featureless image. It is empty for any other image: hashing takes a fifth
    of the time of decoding.
    """

    signatures: tuple[Signature, ...]
    width: int
    height: int
    pixels_sha256: bytes = b""


def pack(parts: Sequence[bytes]) -> bytes:
    """Return the head of a message, which its parts follow."""
    return _HEAD.pack(len(parts), *map(len, parts), *[0] * (MAX_PARTS - len(parts)))


def receive(connection: socket.socket, *, max_bytes: int) -> list[bytes]:
    """Return the parts of the next message; raises EOFError if the connection ends before the message does."""
    count, *lengths = _HEAD.unpack(_receive(connection, _HEAD.size))
    *starts, end = accumulate(lengths[:count], initial=0)
    if end > max_bytes:
        message = f"a message of {end:,} bytes exceeds {max_bytes:,}"
        raise EOFError(message)
    body = _receive(connection, end)
    # A slice of the whole body is not a copy.
    return [body[start:stop] for start, stop in pairwise([*starts, end])]


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


def _receive(connection: socket.socket, length: int) -> bytes:
    data = connection.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise EOFError("the other process closed the connection")
    return data
