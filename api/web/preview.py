"""A small copy of a query that the browser cannot show: an image by its URL, or of another format."""

from flask import Response

from api.access.keys import Scope
from api.envelope import fail
from api.rate_limits import client_of_request
from api.routes.thumbnail import HEADERS
from api.services import Services
from api.web import forms
from api.web.pages import form

# The size of the image itself, which a transform is for.
SIZE = "X-Image-Size"


def preview(services: Services, params: forms.Preview) -> Response:
    """Return a thumbnail of an image that is not stored, and its size in the header SIZE."""
    if services.thumbnails is None:
        return fail("no_thumbnail")
    image = services.search_images.thumbnail(params.source, client=client_of_request())
    size = f"{image.width}x{image.height}"
    return Response(image.thumbnail, mimetype="image/webp", headers=HEADERS | {SIZE: size, "Cache-Control": "no-store"})


ENDPOINTS = (
    # Of an image at a URL a key sees no more than after an add, which needs the same scope.
    form("preview", "/web/preview", preview, forms.Preview, scope=Scope.WRITE, images=1),
)
