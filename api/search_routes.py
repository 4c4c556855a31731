"""Finding and comparing pictures."""

from flask import Response

from api import requests
from api.endpoints import Endpoint
from api.envelope import ok
from api.services import Services
from common.search import search


def search_(services: Services, given: requests.Search) -> Response:
    """Find what looks like the picture."""
    turned = given.all_orientations
    with services.searching.passage():
        matches = search(
            services.pictures.signature(given.source),
            services.store,
            all_orientations=services.settings.all_orientations if turned is None else turned,
            limit=given.limit,
            offset=given.offset,
            min_score=given.min_score,
            where=given.filter,
        )
    return ok(
        [
            {
                "score": match.score,
                "filepath": match.filepath,
                "metadata": match.metadata,
                "orientation": match.orientation,
            }
            for match in matches
        ]
    )


def compare(services: Services, given: requests.Compare) -> Response:
    """Score how alike two pictures are."""
    with services.searching.passage():
        return ok([{"score": services.pictures.compare(*given.pair)}])


ENDPOINTS = (
    Endpoint(name="search", path="/search", methods=("POST",), view=search_, takes=(requests.Search,), pictures=1),
    Endpoint(name="compare", path="/compare", methods=("POST",), view=compare, takes=(requests.Compare,), pictures=2),
)
