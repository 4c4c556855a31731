"""GET /images/thumbnail: a small WebP of a stored image."""

import hashlib

from flask import Response, request

from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import fail
from api.forms import requests
from api.services import Services

HEADERS = {
    # Browsers keep it, and ask each time: the image may be replaced or deleted at any time.
    "Cache-Control": "private, no-cache",
    # A browser that opens it as a page runs nothing.
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
}


def thumbnail(services: Services, params: requests.Image) -> Response:
    """Return a small WebP of a stored image.

    Workers keep thumbnails if `MATCH_THUMBNAILS_PX` is set, for images that are added from then on. The reply has a
    strong `ETag`, and answers 304 to a request with it in `If-None-Match`.
    """
    record = services.search_images.record(params.filepath, field="filepath", collection=params.collection)
    webp = None if services.thumbnails is None else services.thumbnails.get(record.seq)
    if webp is None:
        return fail("no_thumbnail", field="filepath")
    response = Response(webp, mimetype="image/webp", headers=HEADERS)
    response.set_etag(hashlib.sha256(webp).hexdigest())
    response.make_conditional(request)
    return response


ENDPOINTS = (
    Endpoint(
        name="thumbnail",
        path="/images/thumbnail",
        scope=Scope.READ,
        methods=("GET",),
        view=thumbnail,
        reply=Reply(media_type="image/webp", errors=(404, 503)),
        parameters=(requests.Image,),
    ),
)
