"""The search page: a form, and the matches of an image."""

from flask import Response

from api.access.keys import Scope
from api.forms.requests import Count
from api.routes import search as search_views
from api.routes import stored_images as collection_views
from api.services import Services
from api.web import forms
from api.web.pages import form, readable
from api.web.rendering import page
from common.modes import MODES


def home(services: Services, params: forms.Home) -> Response:
    """Show the form."""
    stored = count(services, Count(collection=params.collection))
    return page(services, "search.html", params=None, stored=stored, modes=MODES)


def stored(services: Services, params: forms.Home | forms.SearchStored) -> Response:
    """Show the matches of a stored image; without one, only the form."""
    return home(services, params) if isinstance(params, forms.Home) else search(services, params)


def search(services: Services, params: forms.Search) -> Response:
    """Show the matches of an image."""
    reply = search_views.search(services, params).get_json()
    # Each stored image is like itself.
    matches = [match for match in reply["result"] if match["filepath"] != params.filepath]
    # A transform is in pixels of both images.
    placed = [match["filepath"] for match in matches if "transform" in match]
    queries = [] if params.filepath is None else [params.filepath]
    sizes = services.store.records([*placed, *queries], collection=params.collection)
    return page(
        services,
        "search.html",
        params=params,
        query=next((sizes[filepath] for filepath in queries if filepath in sizes), None),
        stored=count(services, forms.to_count(params)),
        # An image that was deleted meanwhile has no size.
        matches=[match for match in matches if "transform" not in match or match["filepath"] in sizes],
        sizes=sizes,
        warnings=reply["error"],
        mode=reply["mode"],
        modes=MODES,
        all_orientations=services.settings.all_orientations
        if params.all_orientations is None
        else params.all_orientations,
    )


def count(services: Services, params: Count) -> int:
    """Return the number of the images that pass a filter."""
    [number] = collection_views.count(services, params).get_json()["result"]
    return int(number)


ENDPOINTS = (
    readable("home", "/", home, forms.Home),
    readable("stored", "/web/search", stored, forms.Home, forms.SearchStored),
    form("search", "/web/search", search, forms.Search, scope=Scope.READ, images=1),
)
