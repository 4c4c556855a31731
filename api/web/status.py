"""The status page: the dependencies, the number of stored images, and the version."""

from flask import Response

from api.access.collections import may_use_all
from api.forms.requests import Nothing
from api.routes import health
from api.routes.collections import collections
from api.services import Services
from api.web.pages import readable
from api.web.rendering import page
from common.errors import MatchError
from common.store.base import Disk
from common.version import VERSION


def status(services: Services, params: Nothing) -> Response:
    """Show whether searches and adds work; it answers also while they do not."""
    reply = health.readyz(services, params).get_json()
    return page(
        services, "status.html", reply=reply, stored=stored_images(services), disk=disk(services), version=VERSION
    )


def stored_images(services: Services) -> int | None:
    """Return the number of images in the collections that the request may use, None while the store does not answer."""
    try:
        return sum(int(collection["images"]) for collection in collections(services, Nothing()).get_json()["result"])
    except MatchError:
        return None


def disk(services: Services) -> Disk | None:
    """Return the use of disks by all collections, None while the store does not answer, or if the key is limited."""
    if not may_use_all():
        return None
    try:
        return services.store.disk()
    except MatchError:
        return None


ENDPOINTS = (readable("status", "/web/status", status),)
