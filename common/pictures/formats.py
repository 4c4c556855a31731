"""Which picture format bytes begin, and what is told to those who send something else."""

from collections.abc import Callable

from common.errors import ImageError

READ = "JPEG, PNG, GIF, WebP, AVIF, HEIC, TIFF, BMP and PNM"
"""The formats that are read, for people."""

SNIFFED_BYTES = 16
"""How many first bytes `looks_like_picture` needs."""

# Refused by name, since people do send them.
_NOT_READ = {
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
    """Return the Pillow formats that `data` may have, by its first bytes; costs nothing.

    Raises ImageError as `decode` would: empty_image, not_an_image or unsupported_format.
    """
    formats = _sniff(data[:SNIFFED_BYTES])
    if not formats:
        raise _refused(data)
    return formats


def looks_like_picture(head: bytes) -> bool:
    """Say whether the first SNIFFED_BYTES bytes begin one of the formats that are read."""
    return bool(_sniff(head))


def _sniff(head: bytes) -> tuple[str, ...]:
    """Return the Pillow formats that `head` may begin; none when it begins no format on this list.

    Left out are formats that start other programs (EPS, WMF), that decode before their size can be looked at (ICO),
    that cannot be told by their first bytes (TGA), and those hardly met outside their programs.
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
    # These brands are of the container and stand for either.
    (("AVIF", "HEIF"), _has_brand(b"mif1", b"msf1")),
    (("TIFF",), _starts(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")),
    (("BMP",), _starts(b"BM")),
    (("PPM",), _starts(*(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b" \t\r\n"))),
)


def _refused(data: bytes) -> ImageError:
    """Name what was sent instead of a picture, as far as its first bytes tell."""
    if not data:
        return ImageError("the picture is empty: 0 bytes", code="empty_image")
    begin = data[:1024].lstrip().lower()
    name = next((name for prefix, name in _NOT_READ.items() if data.startswith(prefix)), "")
    if b"<svg" in begin:
        name = "SVG"
    if name:
        return ImageError(f"{name} files are not read, but {READ} are", code="unsupported_format")
    if begin.startswith((b"<", b"{")):
        return ImageError("the data is text, such as a web page, not a picture", code="not_an_image")
    return ImageError(f"the data is not a picture of a format that is read: {READ}", code="not_an_image")
