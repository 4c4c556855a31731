"""The structure of a JPEG file, without its pixels: frame, scans and end."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

END = b"\xff\xd9"
"""The end marker."""

# A marker that ends a scan: neither a stuffed zero nor a restart marker nor a fill byte.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
_FIRST_KIND = 0xC0
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _RESTART_INTERVAL = 0xD8, 0xD9, 0xDA, 0xDD
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = {_BASELINE, _EXTENDED, _PROGRESSIVE}
# Lossless, differential and arithmetic coding.
_OTHER_FRAMES = {0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
# Files with more segments have no outline.
_SEGMENTS = 10_000
_COEFFICIENTS = 64
_ALL = (1 << _COEFFICIENTS) - 1


@dataclass(slots=True)
class Outline:
    """The structure of a JPEG: the bytes of its last scan, and the precision that no scan contains.

    `parts` has the sampling factors of each component. `missing` has a bit set for each coefficient of a component that
    no scan completed. `restarts` is the number of restart markers in a complete last scan.
    """

    scans: int = 0
    scan_start: int = 0
    scan_end: int = 0
    has_end: bool = False
    is_progressive: bool = False
    size: tuple[int, int] = (0, 0)
    parts: dict[int, tuple[int, int]] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)
    interval: int = 0
    restarts: int = 0

    @property
    def is_partial(self) -> bool:
        """Whether scans are missing."""
        return any(self.missing.values())

    def ends_after_scans(self, data: bytes) -> bool:
        """Return whether the end marker follows the last scan, and only a progressive image has several scans."""
        return (self.is_progressive or self.scans == 1) and data.startswith(END, self.scan_end)


def read_outline(data: bytes) -> Outline | None:
    """Return the structure; None for damaged files, and for arithmetic coding, whose data may end early."""
    outline = Outline()
    for kind, start, end, following in _segments(data):
        if kind == _END_OF_IMAGE:
            outline.has_end = True
        elif kind == _START_OF_SCAN:
            outline.scan_start, outline.scan_end = end, following
            _note_scan(outline, data[start:end])
        elif kind == _RESTART_INTERVAL:
            outline.interval = int.from_bytes(data[start : start + 2])
        elif kind in _FRAMES:
            _note_frame(outline, kind, data[start:end])
        elif kind in _OTHER_FRAMES:
            return None
    return outline if outline.scan_end else None


def is_cut_short(data: bytes) -> bool:
    """Return whether the file ends within a segment before its first scan."""
    segments = list(_segments(data))
    if any(kind in {_START_OF_SCAN, _END_OF_IMAGE} for kind, *_ in segments):
        return False
    end = segments[-1][2] if segments else 2
    marker, length = data[end : end + 2], int.from_bytes(data[end + 2 : end + 4])
    if len(data) < end + 4:
        return True
    return marker[0] == 0xFF and marker[1] >= _FIRST_KIND and len(data) < end + 2 + length  # noqa: PLR2004 - a marker's first byte


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the kind and the range of each segment, and the start of the next marker or the end of the file.

    The last segment is the end of the image, or the last one before a damaged one.
    """
    marker = _MARKER.search(data, 2)
    for _ in range(_SEGMENTS):
        if marker is None:
            return
        kind, start = data[marker.end() - 1], marker.end() + 2
        if kind in {_START_OF_IMAGE, _END_OF_IMAGE}:
            yield kind, marker.end(), marker.end(), marker.end()
            return
        end = marker.end() + int.from_bytes(data[marker.end() : start])
        if not start <= end <= len(data):
            return
        marker = _MARKER.search(data, end)
        yield kind, start, end, marker.start() if marker else len(data)


def _note_frame(outline: Outline, kind: int, header: bytes) -> None:
    outline.is_progressive = kind == _PROGRESSIVE
    outline.size = int.from_bytes(header[3:5]), int.from_bytes(header[1:3])
    pairs = zip(header[6::3], header[7::3], strict=False)
    outline.parts = {part: (sampling >> 4, sampling & 15) for part, sampling in pairs}
    outline.missing = dict.fromkeys(outline.parts, _ALL)


def _note_scan(outline: Outline, header: bytes) -> None:
    """Remove the coefficients that a scan completes, and count its restart markers."""
    outline.scans += 1
    count = header[0] if header else 0
    parts, bounds = header[1 : 1 + 2 * count : 2], header[1 + 2 * count :]
    outline.restarts = _restarts(outline, parts)
    # In sequential coding a scan has all coefficients, and these bytes have no meaning.
    first, last, bits = bounds[:3] if outline.is_progressive and len(bounds) > 2 else (0, _COEFFICIENTS - 1, 0)  # noqa: PLR2004 - three bytes
    if bits & 15 == 0 and first <= last:
        completed = (2 << last) - (1 << first)
        outline.missing.update((part, outline.missing.get(part, 0) & ~completed) for part in parts)


def _restarts(outline: Outline, parts: bytes) -> int:
    """Return the number of restart markers between the units of a scan."""
    factors = list(outline.parts.values())
    if not outline.interval or not factors or not all(across and down for across, down in factors):
        return 0
    units = 1
    for axis in (0, 1):
        most = max(factor[axis] for factor in factors)
        # A scan with one component has one of its blocks as its unit.
        own = outline.parts.get(parts[0], (1, 1))[axis] if len(parts) == 1 else 1
        units *= -(-outline.size[axis] * own // (8 * most))
    return max(0, -(-units // outline.interval) - 1)
