"""The comparison of two images."""

from flask import Response

from api.access.keys import Scope
from api.routes import search as search_views
from api.services import Services
from api.web import forms
from api.web.pages import form, readable
from api.web.rendering import page


def pair(services: Services, params: forms.ComparePage) -> Response:
    """Show the form; the names of stored images may be in the address."""
    return page(services, "compare.html", names=(params.filepath1, params.filepath2), score=None)


def compare(services: Services, params: forms.Compare) -> Response:
    """Show the score of two images."""
    reply = search_views.compare(services, params).get_json()
    names = (params.filepath1 or "", params.filepath2 or "")
    [result] = reply["result"]
    return page(services, "compare.html", names=names, score=result["score"], warnings=reply["error"])


ENDPOINTS = (
    readable("pair", "/web/compare", pair, forms.ComparePage),
    form("compare", "/web/compare", compare, forms.Compare, scope=Scope.READ, images=2),
)
