"""JPEG: drafts of large images, limits for files of many scans, and data that end early."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image, ImageChops, ImageFile, JpegImagePlugin

from common.errors import ImageError
from common.images.limits import Limits, check_pixels

# Progressive JPEGs have about ten scans. Each updates the whole image and may be a few bytes long: without a limit, a
# file of some megabytes keeps the decoder busy for an hour.
_SCANS = 100
_END = b"\xff\xd9"
# A marker that ends a scan: neither a stuffed zero nor a restart marker nor a fill byte.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = {_BASELINE, _EXTENDED, _PROGRESSIVE}
# More segments are not checked for a missing end.
_SEGMENTS = 10_000
# A scan's data may contain some zero bytes in a row. A preallocated file has pages of them.
_ZEROS = bytes(32)
# Bytes that look like scan data to a decoder that still waits for some, without a marker.
_FILLER = bytes((index * 73 + 41) % 251 for index in range(96))
# Bytes that libjpeg reads ahead at most.
_BUFFER = 8
# libjpeg fills the rest of a scan that ends early with the middle of the scale; CMYK is inverted afterwards.
_FILL = {127, 128}


def shrink(image: JpegImagePlugin.JpegImageFile, data: bytes, limits: Limits) -> None:
    """Select a draft (a half, a quarter or an eighth) for a large JPEG. Raises ImageError if it is still too large."""
    if _has_one_scan(image, data):
        check_pixels(image.size, limits.jpeg_pixels)
    else:
        # With several scans the decoder keeps all coefficients of the full size, also for a draft.
        check_pixels(image.size, limits.pixels)
        _check_scans(data)
    if limits.draft_px:
        image.draft("RGB", (limits.draft_px, limits.draft_px))


def end_properly(data: bytes, limits: Limits) -> bytes:
    """Return a JPEG with its end marker, which some programs omit.

    Raises ImageError (truncated_image) if image data are missing, or if zeros replace them.
    """
    outline = _outline(data)
    if outline is None:
        return data
    if not outline.has_end:
        _check_complete(data, outline, limits)
        return _entropy(data, outline) + _END
    if data.endswith(_ZEROS, 0, outline.data_end) or not outline.is_covered:
        _check_complete(data, outline, limits)
    return data


def check_last_pixel(image: Image.Image, data: bytes, limits: Limits) -> None:
    """Raise ImageError (truncated_image) if the decoder filled the end of a loaded JPEG for lack of data.

    The decoder reports nothing. Only an image whose last pixel is a middle grey is decoded again to find out.
    """
    last = image.getpixel((image.width - 1, image.height - 1))
    values = set(last) if isinstance(last, tuple) else {last}
    outline = _outline(data) if values <= _FILL else None
    if outline is not None:
        _check_complete(data, outline, limits)


@dataclass(slots=True)
class _Outline:
    """The structure of a JPEG: the end of its last scan's data, and the precision that is still missing.

    `missing` has an item for each component and coefficient (0 to 63) that no scan completed.
    """

    data_end: int = 0
    has_end: bool = False
    is_progressive: bool = False
    missing: set[tuple[int, int]] = field(default_factory=set)

    @property
    def is_covered(self) -> bool:
        """Whether the scans contain every coefficient in full precision."""
        return not self.missing


def _outline(data: bytes) -> _Outline | None:
    """Return the structure; None for a variant without a check (arithmetic coding), or for damaged segments."""
    outline = _Outline()
    for kind, start, end in _segments(data):
        if kind == _END_OF_IMAGE:
            outline.has_end = True
        elif kind == _START_OF_SCAN:
            following = _MARKER.search(data, end)
            outline.data_end = following.start() if following else len(data)
            _note_scan(outline, data[start:end])
        elif kind in _FRAMES:
            outline.is_progressive = kind == _PROGRESSIVE
            outline.missing = {(part, index) for part in data[start + 6 : end : 3] for index in range(64)}
        elif 0xC3 <= kind <= 0xCF and kind not in {0xC4, 0xC8, 0xCC}:  # noqa: PLR2004 - other coding processes
            return None
    return outline if outline.data_end else None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker and the range of each segment up to the end, or up to a damaged one."""
    position = 2
    for _ in range(_SEGMENTS):
        marker = _MARKER.search(data, position)
        if marker is None:
            return
        kind, start = data[marker.end() - 1], marker.end() + 2
        if kind in {_START_OF_IMAGE, _END_OF_IMAGE}:
            yield kind, marker.end(), marker.end()
            return
        end = marker.end() + int.from_bytes(data[marker.end() : start])
        if not start <= end <= len(data):
            return
        yield kind, start, end
        position = end


def _note_scan(outline: _Outline, header: bytes) -> None:
    """Remove the coefficients that a scan completes."""
    count = header[0] if header else 0
    if len(header) < 4 + 2 * count:
        return
    first, last, approximation = header[1 + 2 * count : 4 + 2 * count]
    if not outline.is_progressive:
        first, last, approximation = 0, 63, 0
    if approximation & 15 == 0:
        parts = header[1 : 1 + 2 * count : 2]
        outline.missing -= {(part, index) for part in parts for index in range(first, last + 1)}


def _entropy(data: bytes, outline: _Outline) -> bytes:
    """Return the file up to the end of its last scan, without half of an end marker."""
    body = data[: outline.data_end]
    return body[:-1] if body.endswith(b"\xff") else body


def _check_complete(data: bytes, outline: _Outline, limits: Limits) -> None:
    """Raise ImageError (truncated_image) if the last scan's data end early, or if zeros continue them."""
    if not outline.is_covered and not outline.has_end:
        raise _truncated()
    body = _entropy(data, outline)
    stripped = body.rstrip(b"\x00")
    stripped += b"\x00" * stripped.endswith(b"\xff")
    if _is_complete(stripped, limits):
        return
    # A flat area may be coded as zeros. Then each of them counts; zeros in place of lost data are too few or too many.
    if len(stripped) < len(body) and _is_complete(body, limits) and not _is_complete(body[:-_BUFFER], limits):
        return
    raise _truncated()


def _is_complete(body: bytes, limits: Limits) -> bool:
    """Return whether the pixels stay the same if more scan data follow: the decoder then needs none."""
    try:
        with _loaded(body + _END, limits) as one, _loaded(body + _FILLER + _END, limits) as other:
            return ImageChops.difference(one, other).getbbox() is None
    except OSError:
        return False


def _loaded(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    image = JpegImagePlugin.JpegImageFile(BytesIO(data))
    shrink(image, data, limits)
    image.load()
    return image


def _truncated() -> ImageError:
    return ImageError("the JPEG image is truncated", code="truncated_image")


def _check_scans(data: bytes) -> None:
    # Compressed data never contains this pair of bytes: it always begins a scan.
    if data.count(b"\xff\xda") > _SCANS:
        message = f"the JPEG image has more than {_SCANS} scans"
        raise ImageError(message, code="unsupported_format")


def _has_one_scan(image: JpegImagePlugin.JpegImageFile, data: bytes) -> bool:
    """Return whether the first scan of a JPEG contains all its colours; False if in doubt.

    Pillow has stopped reading after that scan's header.
    """
    header = b"\xff\xda" + struct.pack(">HB", 6 + 2 * image.layers, image.layers)
    begin = image.fp.tell() - 8 - 2 * image.layers if image.fp else 0
    return "progressive" not in image.info and data.startswith(header, max(0, begin))
