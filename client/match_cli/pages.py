"""HTML pages that show images side by side, each page one file."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

from match_cli.shrinking import is_available
from match_client.sources import is_url

THUMBNAIL_PX = 240
QUALITY = 80

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy"
    content="default-src 'none'; style-src 'unsafe-inline'; img-src data: https: http:">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #1a1a1a; background: #fff }}
section {{ border-top: 1px solid #ccc; padding: 1rem 0 }}
h1, h2 {{ font-size: 1.2rem; font-weight: 600; margin: 0 0 .6rem }}
ul {{ list-style: none; display: flex; flex-wrap: wrap; gap: 1rem; margin: 0; padding: 0 }}
li {{ width: 15rem; overflow-wrap: anywhere; font-size: .85rem }}
img, .none {{ display: block; width: 15rem; height: 15rem; object-fit: contain; background: #f0f0f0 }}
.none {{ line-height: 15rem; text-align: center; color: #666 }}
@media (prefers-color-scheme: dark) {{
body {{ color: #eee; background: #181818 }} section {{ border-color: #444 }} img, .none {{ background: #2a2a2a }} }}
</style>
<h1>{title}</h1>
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """An image on a page: its name, a line below it, and a WebP or the URL that it was added by, if any."""

    name: str
    caption: str
    thumbnail: bytes | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Images that belong together, under a heading."""

    heading: str
    images: Sequence[Shown]


def page(title: str, sections: Iterable[Section]) -> Iterator[str]:
    """Yield the parts of a page; memory holds one section."""
    yield HEAD.format(title=escape(title))
    for section in sections:
        yield f"<section><h2>{escape(section.heading)}</h2><ul>\n"
        for image in section.images:
            yield f"<li>{_image(image)}{escape(image.name)}<br>{escape(image.caption)}</li>\n"
        yield "</ul></section>\n"


def _image(image: Shown) -> str:
    """Return the element of an image: a thumbnail of the file with its name or of the service, else its URL."""
    webp = thumbnail_of(image.name) or image.thumbnail
    url = next((url for url in (image.url, image.name) if url and is_url(url)), None)
    source = f"data:image/webp;base64,{base64.b64encode(webp).decode()}" if webp else url
    if source is None:
        return '<div class="none">no preview</div>'
    return f'<img loading="lazy" alt="" src="{escape(source)}">'


def thumbnail_of(name: str) -> bytes | None:
    """Return a thumbnail of a file, a WebP; None if the name is not the path of a readable image."""
    path = Path(name)
    if not is_available() or not path.is_absolute() or not path.is_file():
        return None
    from PIL import Image, ImageOps  # noqa: PLC0415 - an extra

    try:
        with Image.open(path) as image:
            image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
            thumbnail = ImageOps.exif_transpose(image).convert("RGB")
            thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            data = BytesIO()
            thumbnail.save(data, "WEBP", quality=QUALITY)
            return data.getvalue()
    except Exception:  # noqa: BLE001 - Pillow raises errors of any class for a broken image
        return None
