"""The messages between a process and its decoder process: an image in, its signatures and features or an error out.

A message is a list of up to MAX_PARTS parts: their number, their lengths, their bytes. Both processes run the same
code, so there is no version. A further result becomes a further part.
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, Flag, auto
from itertools import accumulate, pairwise

import numpy as np

from common.decoding.query_features import pack_query, pack_small_copy, unpack_query, unpack_small_copy
from common.errors import ImageError
from common.images.local_features.geometry import QueryFeatures
from common.images.local_features.sketches import SmallCopy
from common.images.signature import LENGTH, Signature

MAX_PARTS = 8
# The features of a query take up to 80 KB, and its small copy 200 KB. A decoder that an image controls gets no more
# memory of its owner.
MAX_REPLY_BYTES = 1024 * 1024
# Two signatures and their head take 0.6 KB.
_MOST_REPLIES_BYTES = 4096

_HEAD = struct.Struct(f"<{1 + MAX_PARTS}I")
_SIZE = struct.Struct("<II")


class Output(Flag):
    """The results that a request wants of an image, beside its size."""

    SIGNATURES = auto()
    STORED_FEATURES = auto()
    """The local features that a store keeps."""
    QUERY_FEATURES = auto()
    """The local features of a query."""
    SMALL_COPY = auto()
    """A small copy of a query's pixels, which is compared with the sketches of stored images."""
    SMALL_COPY_IF_FLAT = auto()
    """The same, only of an image that is drawn or has a flat signature."""
    THUMBNAIL = auto()
    """A small WebP of the image."""


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
    """The results of an image, and its full `width` and `height`.

    The first of the `signatures` is that of the whole image, a second one that of the image without its flat margins.
    `pixels_sha256` identifies the pixels of a featureless image. It is empty for any other image: hashing takes a fifth
    of the time of decoding. `stored_features` are encoded. See Output for the others.
    """

    signatures: tuple[Signature, ...] = ()
    width: int
    height: int
    pixels_sha256: bytes = b""
    stored_features: bytes | None = None
    query_features: QueryFeatures | None = None
    small_copy: SmallCopy | None = None
    thumbnail: bytes | None = None


def pack(parts: Sequence[bytes]) -> bytes:
    """Return the head of a message, which its parts follow."""
    return _HEAD.pack(len(parts), *map(len, parts), *[0] * (MAX_PARTS - len(parts)))


def receive_request(connection: socket.socket) -> list[bytes]:
    """Return the parts of the next request; raises EOFError if the connection ends before the request does."""
    count, *lengths = _HEAD.unpack(_receive(connection, _HEAD.size))
    # A call for each part: a slice of all of them would copy the image.
    return [_receive(connection, length) for length in lengths[:count]]


def receive_reply(connection: socket.socket) -> list[bytes]:
    """Return the parts of the reply, which nothing follows; raises EOFError if the connection ends before it does."""
    # All of most replies in one call.
    body = connection.recv(_MOST_REPLIES_BYTES)
    body += _receive(connection, max(0, _HEAD.size - len(body)))
    count, *lengths = _HEAD.unpack_from(body)
    *starts, end = accumulate(lengths[:count], initial=_HEAD.size)
    if end > MAX_REPLY_BYTES:
        message = f"a reply of {end:,} bytes exceeds {MAX_REPLY_BYTES:,}"
        raise EOFError(message)
    body += _receive(connection, end - len(body))
    return [body[start:stop] for start, stop in pairwise([*starts, end])]


def request_parts(data: bytes, outputs: Output) -> list[bytes]:
    """Return the parts of a request for the results of an image."""
    return [bytes([outputs.value]), data]


def request(parts: Sequence[bytes]) -> tuple[bytes, Output]:
    """Return the image in a request, and the results that it wants."""
    outputs, data = parts
    return data, Output(outputs[0])


def signed_parts(image: SignedImage) -> list[bytes]:
    """Return the parts of the reply with a result; an empty part is not an output."""
    return [
        Kind.SIGNED.value,
        _SIZE.pack(image.width, image.height),
        image.pixels_sha256,
        b"".join(each.tobytes() for each in image.signatures),
        image.stored_features or b"",
        pack_query(image.query_features) if image.query_features else b"",
        image.thumbnail or b"",
        pack_small_copy(image.small_copy) if image.small_copy else b"",
    ]


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
    return SignedImage(
        signatures=tuple(np.frombuffer(parts[3], np.int8).reshape(-1, LENGTH)),
        width=width,
        height=height,
        pixels_sha256=parts[2],
        stored_features=parts[4] or None,
        query_features=unpack_query(parts[5], width=width, height=height) if parts[5] else None,
        thumbnail=parts[6] or None,
        small_copy=unpack_small_copy(parts[7]) if parts[7] else None,
    )


def _receive(connection: socket.socket, length: int) -> bytes:
    if not length:
        return b""
    data = connection.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise EOFError("the other process closed the connection")
    return data
