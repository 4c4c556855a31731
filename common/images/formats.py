"""Recognition of image formats by their first bytes, and the errors for other data."""

import re
from collections.abc import Callable

from common.errors import ImageError

SUPPORTED_FORMATS = "JPEG, PNG, GIF, WebP, AVIF, HEIC, TIFF, BMP and PNM"
"""The supported formats, for people."""

SNIFFED_BYTES = 16
"""Number of first bytes that `looks_like_image` needs."""

# Enough for the comments at the start of an SVG.
_TEXT_BYTES = 4096
# The first element is `svg`, after declarations and comments. A page may contain an SVG anywhere else.
_SVG = re.compile(
    rb"(?>\s+|<\?.*?\?>|<!--.*?-->|<!doctype\s+svg(?>[^>\[]+|\[.*?\])*+>)*+<(?>\w+:)?svg[\s/>]",
    re.IGNORECASE | re.DOTALL,
)

# Unsupported formats that clients send: the error names them.
_UNSUPPORTED = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"8BPS": "Photoshop",
    b"\x00\x00\x01\x00": "icon",
    b"\x00\x00\x00\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL": "JPEG XL",
    b"\xd7\xcd\xc6\x9a": "Windows metafile",
    b"\x01\xda": "SGI",
}


def check_format(data: bytes) -> tuple[str, ...]:
    """Return the Pillow formats that `data` may have, by its first bytes.

    Raises ImageError with the codes of `decode`: empty_image, not_an_image or unsupported_format.
    """
    formats = _sniff(data[:SNIFFED_BYTES])
    if not formats:
        raise _rejection(data)
    return formats


def looks_like_image(head: bytes) -> bool:
    """Return whether the first SNIFFED_BYTES bytes are those of a supported format."""
    return bool(_sniff(head))


def _sniff(head: bytes) -> tuple[str, ...]:
    """Return the Pillow formats that `head` may begin; empty for an unsupported one.

    Excluded are formats that start other programs (EPS, WMF) or that decode before their size is known (ICO). TGA has
    no magic number, and other formats are rarely used outside their own programs.
    """
    return next((formats for formats, begins in _FORMATS if begins(head)), ())


def _starts(*prefixes: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(prefixes)


def _is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _has_brand(*brands: bytes) -> Callable[[bytes], bool]:
    """Recognise ISO base media files by their major brand."""
    return lambda head: head[4:8] == b"ftyp" and head[8:12] in brands


_FORMATS: tuple[tuple[tuple[str, ...], Callable[[bytes], bool]], ...] = (
    (("JPEG",), _starts(b"\xff\xd8\xff")),
    (("PNG",), _starts(b"\x89PNG\r\n\x1a\n")),
    (("GIF",), _starts(b"GIF87a", b"GIF89a")),
    (("WEBP",), _is_webp),
    (("AVIF",), _has_brand(b"avif", b"avis")),
    (("HEIF",), _has_brand(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")),
    # These brands name only the container, which both formats use.
    (("AVIF", "HEIF"), _has_brand(b"mif1", b"msf1")),
    (("TIFF",), _starts(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")),
    (("BMP",), _starts(b"BM")),
    (("PPM",), _starts(*(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b" \t\r\n"))),
)


def _rejection(data: bytes) -> ImageError:
    """Return the error for unsupported data; it names the format where the first bytes show it."""
    if not data:
        return ImageError("the image is empty: 0 bytes", code="empty_image")
    name = next((name for prefix, name in _UNSUPPORTED.items() if data.startswith(prefix)), "")
    begin = data[:_TEXT_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    if _SVG.match(begin):
        name = "SVG"
    if name:
        return ImageError(f"{name} is not supported; supported formats: {SUPPORTED_FORMATS}", code="unsupported_format")
    if begin.startswith((b"<", b"{")):
        return ImageError("the data is text, such as a web page, not an image", code="not_an_image")
    return ImageError(f"the data is not an image of a supported format: {SUPPORTED_FORMATS}", code="not_an_image")
