"""Rendering: from a template to an HTML response with its content security policy."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Response, g, request
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from api.access.keys import Scope
from api.forms.requests import Nothing
from api.routes.collections import collections
from api.services import Services
from api.web.images import Images, address
from common.collection_names import DEFAULT_COLLECTION
from common.config import Settings

KILO = 1000
_TEMPLATES = Environment(
    loader=PackageLoader("api.web"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Nothing inline and no other host. `blob:` is for the query, which the page shows before it is sent, and for images
# that it fetches with an API key.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: {origin}; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page(services: Services, template: str, *, status: int = 200, **context: Any) -> Response:  # noqa: ANN401 - JSON
    """Return the page of a template; `context` are the values that only this template uses."""
    collection = g.get("collection", DEFAULT_COLLECTION)
    images = Images(
        services.settings.image_url_template, has_thumbnails=services.thumbnails is not None, collection=collection
    )
    html = _TEMPLATES.get_template(template).render(
        path=request.path,
        scopes=allowed_scopes(services.settings),
        has_keys=has_keys(services.settings),
        images=images,
        collection=collection,
        collections=partial(allowed_collections, services),
        address=partial(address, collection=collection),
        **context,
    )
    headers = {
        "Content-Security-Policy": _POLICY.format(origin=images.origin).replace(" ;", ";"),
        # Without a referrer a browser sends `Origin: null` with a form, and its own pages look like other sites.
        "Referrer-Policy": "same-origin",
        "Vary": "Authorization",
    }
    return Response(html, status=status, mimetype="text/html", headers=headers)


def has_keys(settings: Settings) -> bool:
    """Return whether the API has keys: then the module of the page sends the reader's key with every request."""
    return settings.api_keys_file is not None


def allowed_scopes(settings: Settings) -> frozenset[Scope]:
    """Return the scopes of the request: all of them where the API has no keys."""
    if not has_keys(settings):
        return frozenset(Scope)
    return frozenset() if g.key is None else g.key.scopes


def allowed_collections(services: Services) -> list[str]:
    """Return the names of the collections that the request may use."""
    reply = collections(services, Nothing()).get_json()
    return [collection["name"] for collection in reply["result"]]


def words_of(orientation: str) -> str:
    """Return the name of an orientation as people read it.

    >>> words_of("inverted_mirrored_rotated_90")
    'inverted, mirrored, rotated 90°'
    """
    words = orientation.replace("rotated_", "rotated ").replace("_", ", ")
    return f"{words}°" if words[-1].isdigit() else words


def counted(number: int, thing: str, things: str = "") -> str:
    """Return the number with its noun.

    >>> counted(1, "image"), counted(1234, "image"), counted(0, "match", "matches")
    ('1 image', '1,234 images', '0 matches')
    """
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def day(added: int) -> str:
    """Return the day of a time in milliseconds since 1970.

    >>> day(1_700_000_000_000)
    '2023-11-14'
    """
    return f"{datetime.fromtimestamp(added / 1000, UTC):%Y-%m-%d}"


def size_of(number: int) -> str:
    """Return a number of bytes as people read it.

    >>> size_of(999), size_of(1_500_000), size_of(23_000_000_000_000)
    ('999 B', '1.5 MB', '23.0 TB')
    """
    size, unit = float(number), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < KILO:
            break
        size, unit = size / KILO, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


_TEMPLATES.filters |= {"bytes": size_of, "orientation": words_of, "counted": counted, "day": day}
