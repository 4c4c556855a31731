"""PNG: the chunks that pixels need, and colour keys of every depth."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image

from common.errors import ImageError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Length and type before a chunk's data, and the checksum after them.
_HEAD, _CRC = 8, 4
# The ancillary chunks that change pixels or their orientation: transparency, EXIF and animation.
_NEEDED = frozenset({b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"})
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_GREY, _RGB, _PALETTE = 0, 2, 3
# Bytes of a tRNS chunk by colour type: two for each channel of the key.
_KEY_BYTES = {_GREY: 2, _RGB: 6}
_ENTRIES_MAX = 256
_DEEP = 16
# Offsets in the first chunk: bits of a channel, and colour type.
_DEPTH, _COLOUR_TYPE = slice(24, 25), slice(25, 26)


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    end: int

    @property
    def is_critical(self) -> bool:
        """The PNG specification: a decoder must not ignore a chunk whose name begins with a capital letter."""
        return self.kind[:1].isupper()


def keep_needed_chunks(data: bytes) -> bytes:
    """Return a PNG without the chunks that no pixel needs, and without ancillary chunks that are damaged.

    Browsers read over faults in them. Pillow rejects the image, or unpacks megabytes of text.
    Raises ImageError for damage in a critical chunk: PNG decoders reject it too.
    """
    chunks = list(_chunks(data))
    _check_critical(data, chunks)
    colour_type = int.from_bytes(data[_COLOUR_TYPE])
    needed = [chunk for chunk in chunks if chunk.is_critical or _is_usable(data, chunk, colour_type)]
    if needed and needed[-1].kind == b"IEND" and not _is_animation(data, needed):
        needed = [chunk for chunk in needed if chunk.kind not in _ANIMATION]
    if len(needed) == len(chunks):
        return data
    # The rest after the last whole chunk stays: a cut-off chunk has to remain one.
    tail = data[chunks[-1].end :] if chunks[-1].kind != b"IEND" else b""
    return b"".join([_SIGNATURE, *(data[chunk.start : chunk.end] for chunk in needed), tail])


def is_cut_short(data: bytes) -> bool:
    """Return whether the file ends within a chunk, or before the one that ends every PNG."""
    last = len(_SIGNATURE)
    for chunk in _chunks(data):
        last = chunk.end
        if chunk.kind == b"IEND":
            return False
    kind = data[last + 4 : last + _HEAD]
    return len(kind) < _HEAD - 4 or kind.isalpha()


def apply_key(image: Image.Image, data: bytes) -> Image.Image:
    """Return a loaded image whose colour key fits its pixels: Pillow scales the pixels to eight bits, and not the key.

    The key of an image with 16 bits a channel becomes its alpha channel: its upper eight bits would make neighbouring
    colours transparent too.
    """
    key, depth = image.info.get("transparency"), int.from_bytes(data[_DEPTH])
    if image.mode == "L" and isinstance(key, int):
        # Pixels of two and four bits are multiplied by 85 and 17.
        most = (1 << depth) - 1
        return _with_key(image, (key & most) * (255 // most))
    if image.mode == "RGB" and isinstance(key, tuple):
        if depth == _DEEP and not getattr(image, "is_animated", False):
            return _with_alpha(image, _key_mask(data, key))
        return _with_key(image, tuple(value >> depth - 8 & 255 for value in key))
    return image


def _with_key(image: Image.Image, key: int | tuple[int, ...]) -> Image.Image:
    keyed = image.copy()
    keyed.info["transparency"] = key
    return keyed


def _with_alpha(image: Image.Image, alpha: Image.Image) -> Image.Image:
    opaque = image.copy()
    del opaque.info["transparency"]
    opaque.putalpha(alpha)
    return opaque


def _key_mask(data: bytes, key: tuple[int, ...]) -> Image.Image:
    """Return 0 where all 16 bits of each channel equal the key, and 255 elsewhere."""
    # The rawmode of the other byte order selects the lower eight bits.
    upper, lower = (np.asarray(_channels(data, rawmode)) for rawmode in ("RGB;16B", "RGB;16L"))
    levels = np.array(key)
    equal = (upper == levels >> 8) & (lower == levels & 255)
    return Image.fromarray(np.where(equal.all(axis=2), 0, 255).astype(np.uint8))


def _channels(data: bytes, rawmode: str) -> Image.Image:
    with Image.open(BytesIO(data), formats=["PNG"]) as image:
        image.tile = [tile._replace(args=rawmode) for tile in image.tile]
        image.load()
        return image


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield the whole chunks up to the end, or up to bytes that are not a chunk."""
    start = len(_SIGNATURE)
    while start + _HEAD + _CRC <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + _HEAD + length + _CRC
        if not kind.isalpha() or end > len(data):
            return
        yield _Chunk(kind, start, end)
        if kind == b"IEND":
            return
        start = end


def _check_critical(data: bytes, chunks: list[_Chunk]) -> None:
    if not all(_is_intact(data, chunk) for chunk in chunks if chunk.is_critical):
        raise ImageError("the PNG image is broken: a critical chunk has a wrong checksum", code="broken_image")


def _is_intact(data: bytes, chunk: _Chunk) -> bool:
    """Return whether the checksum over type and data is right."""
    body = memoryview(data)[chunk.start + 4 : chunk.end - _CRC]
    return zlib.crc32(body) == int.from_bytes(data[chunk.end - _CRC : chunk.end])


def _is_animation(data: bytes, chunks: list[_Chunk]) -> bool:
    """Return whether the chunks of an animation agree; otherwise browsers show only the default image."""
    frames = [chunk for chunk in chunks if chunk.kind in _ANIMATION - {b"acTL"}]
    numbers = [_first_number(data, chunk) for chunk in frames]
    controls = [chunk for chunk in chunks if chunk.kind == b"acTL"]
    is_counted = len(controls) == 1 and _first_number(data, controls[0]) == sum(
        chunk.kind == b"fcTL" for chunk in frames
    )
    return is_counted and numbers == list(range(len(numbers))) and _has_data_for_each(chunks)


def _first_number(data: bytes, chunk: _Chunk) -> int:
    """Return the number of frames (acTL), or the sequence number of a frame's chunk."""
    return int.from_bytes(data[chunk.start + _HEAD : chunk.end - _CRC][:4])


def _has_data_for_each(chunks: list[_Chunk]) -> bool:
    """Return whether image data follow the header of each frame, and no frame lacks a header."""
    kinds = [chunk.kind for chunk in chunks if chunk.kind in {b"fcTL", b"fdAT", b"IDAT"}]
    follows = all(kind in {b"fdAT", b"IDAT"} for kind in kinds[-1:])
    follows = follows and not any(pair == (b"fcTL", b"fcTL") for pair in pairwise(kinds))
    return follows and (b"fdAT" not in kinds or b"fcTL" in kinds[: kinds.index(b"fdAT")])


def _is_usable(data: bytes, chunk: _Chunk, colour_type: int) -> bool:
    """Return whether an ancillary chunk is needed and undamaged."""
    if chunk.kind not in _NEEDED or not _is_intact(data, chunk):
        return False
    length = chunk.end - chunk.start - _HEAD - _CRC
    if chunk.kind == b"tRNS":
        return length <= _ENTRIES_MAX if colour_type == _PALETTE else length == _KEY_BYTES.get(colour_type)
    return True
