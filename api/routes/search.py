"""Finding and comparing pictures."""

from flask import Response

from api import replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.forms import requests
from api.services import Services
from common.search import search


def search_(services: Services, given: requests.Search) -> Response:
    """Find what looks like the picture, best first.

    The picture comes by `image`, `url` or `filepath`. Without `min_score` matches score above 55 as they are, and above
    57.1 turned, mirrored or inverted: on photographs about 1 pair of strangers in 100,000 does.
    """
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
    """Score how alike two pictures are.

    Each comes by `image`, `url` or `filepath`, with its number. Where one has nothing to compare, such as a plain area,
    equal pixels score 100 and all else 0; of a stored picture no pixels are known.
    """
    with services.searching.passage():
        return ok([{"score": services.pictures.compare(*given.pair)}])


ENDPOINTS = (
    Endpoint(
        name="search",
        path="/search",
        scope=Scope.READ,
        methods=("POST",),
        view=search_,
        reply=Reply(result=replies.Match, errors=(404, 422, 503)),
        takes=(requests.Search,),
        pictures=1,
    ),
    Endpoint(
        name="compare",
        path="/compare",
        scope=Scope.READ,
        methods=("POST",),
        view=compare,
        reply=Reply(result=replies.Comparison, errors=(404, 422, 503)),
        takes=(requests.Compare,),
        pictures=2,
    ),
)
