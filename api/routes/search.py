"""POST /search and POST /compare."""

from flask import Response

from api import replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.forms import requests
from api.rate_limits import client_of_request
from api.services import Services


def search(services: Services, params: requests.Search) -> Response:
    """Find near-duplicates of an image, best first.

    The image is in `image`, `url` or `filepath`. Without `min_score` matches score above 55 in the image's own
    orientation, and above 57.1 in the others: about 1 pair of unrelated photographs in 100,000 does.
    """
    all_orientations = params.all_orientations
    client = client_of_request()
    with services.search_limit.acquire(client):
        matches = services.search_images.search(
            params.source,
            client=client,
            all_orientations=services.settings.all_orientations if all_orientations is None else all_orientations,
            limit=params.limit,
            offset=params.offset,
            min_score=params.min_score,
            where=params.filter,
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


def compare(services: Services, params: requests.Compare) -> Response:
    """Score how similar two images are.

    Each is in `image`, `url` or `filepath`, with its number. If either has no features to compare, such as a plain
    area, the score is 100 for equal pixels, else 0; the pixels of a stored image are not known.
    """
    client = client_of_request()
    with services.search_limit.acquire(client):
        return ok([{"score": services.search_images.compare(*params.pair, client=client)}])


ENDPOINTS = (
    Endpoint(
        name="search",
        path="/search",
        scope=Scope.READ,
        methods=("POST",),
        view=search,
        reply=Reply(result=replies.Match, errors=(404, 422, 503)),
        parameters=(requests.Search,),
        images=1,
    ),
    Endpoint(
        name="compare",
        path="/compare",
        scope=Scope.READ,
        methods=("POST",),
        view=compare,
        reply=Reply(result=replies.Comparison, errors=(404, 422, 503)),
        parameters=(requests.Compare,),
        images=2,
    ),
)
