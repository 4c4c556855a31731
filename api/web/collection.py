"""The pages of the stored images: browse, view one, delete one."""

from collections.abc import Sequence

from flask import Response

from api.access.keys import Scope
from api.forms import requests
from api.routes import stored_images as collection_views
from api.services import Services
from api.web import forms
from api.web.images import address
from api.web.pages import form, readable
from api.web.rendering import page
from api.web.search import count


def browse(services: Services, params: forms.Browse) -> Response:
    """Show a page of the collection, the newest image first."""
    total = count(services, forms.to_count(params))
    filepaths = newest(services, params, total)
    return page(services, "collection.html", params=params, total=total, filepaths=filepaths, pages=pages_of(total))


def image(services: Services, params: requests.Image) -> Response:
    """Show what is stored under a filepath."""
    [record] = collection_views.images(services, params).get_json()["result"]
    return page(services, "image.html", record=record)


def delete(services: Services, params: requests.Delete) -> Response:
    """Delete an image, and show the collection."""
    collection_views.delete(services, params)
    location = address("/web/collection", collection=params.collection)
    return Response(status=303, headers={"Location": location})


def newest(services: Services, params: forms.Browse, total: int, *, size: int = forms.PAGE_IMAGES) -> Sequence[str]:
    """Return the filepaths of a page of the `total` images, the newest first."""
    offset, limit = window(total, params.page, size=size)
    if not limit:
        return []
    listed = collection_views.list_(services, params.model_copy(update={"offset": offset, "limit": limit}))
    filepaths: list[str] = listed.get_json()["result"]
    return filepaths[::-1]


def window(total: int, number: int, *, size: int = forms.PAGE_IMAGES) -> tuple[int, int]:
    """Return offset and limit in the store's order, oldest first, of a page that begins with the newest.

    >>> window(130, 1), window(130, 3), window(130, 4)
    ((70, 60), (0, 10), (0, 0))
    """
    end = max(0, total - (number - 1) * size)
    start = max(0, end - size)
    return start, end - start


def pages_of(total: int, *, size: int = forms.PAGE_IMAGES) -> int:
    """Return the number of pages; an empty collection has one."""
    return max(1, -(-total // size))


ENDPOINTS = (
    readable("browse", "/web/collection", browse, forms.Browse),
    readable("image", "/web/image", image, requests.Image),
    form("delete", "/web/delete", delete, requests.Delete, scope=Scope.WRITE),
)
