"""Images to send: a URL, a file, bytes or an open file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from match_client.errors import InvalidSource

# A text is a URL if it begins with http:// or https://, else the path of a file.
ImageSource = bytes | Path | str | BinaryIO


@dataclass(frozen=True, slots=True)
class Url:
    """An image that the service downloads."""

    url: str


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an image."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image to add, its name and its metadata."""

    image: ImageSource
    filepath: str
    metadata: Mapping[str, Any] | None = None


def is_url(text: str) -> bool:
    """Return whether the text is a URL rather than a path."""
    return text.lower().startswith(("http://", "https://"))


def read(source: ImageSource) -> Url | Upload:
    """Return the URL or the bytes of an image. Raises InvalidSource."""
    if isinstance(source, str) and is_url(source):
        return Url(source)
    if isinstance(source, bytes):
        return Upload(source)
    try:
        return Upload(Path(source).read_bytes() if isinstance(source, str | Path) else source.read())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidSource(f"{source}: {reason}", code="unreadable_file", field="image") from error
