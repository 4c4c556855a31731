"""POST /search and POST /compare."""

from collections.abc import Sequence
from typing import Any

from flask import Response

from api import replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok, warn
from api.forms import requests
from api.rate_limits import client_of_request
from api.services import Services
from common.warning_codes import FEATURELESS


def search(services: Services, params: requests.Search) -> Response:
    """Find near-duplicates of an image, best first.

    The image is in `image`, `url` or `filepath`. Without `min_score` matches score above 55 in the image's own
    orientation, and above 57.1 in the others: about 1 pair of unrelated photographs in 100,000 does. An image without
    features, such as a plain area, has no matches: `warn` with the code `featureless`.
    """
    all_orientations = params.all_orientations
    client = client_of_request()
    with services.search_limit.acquire(client):
        search_result = services.search_images.search(
            params.source,
            client=client,
            all_orientations=services.settings.all_orientations if all_orientations is None else all_orientations,
            limit=params.limit,
            offset=params.offset,
            min_score=params.min_score,
            selection=params.selection,
        )
    result = [
        {
            "score": match.score,
            "filepath": match.filepath,
            "metadata": match.metadata,
            "orientation": match.orientation,
        }
        for match in search_result.matches
    ]
    return _reply(result, is_featureless=search_result.is_featureless)


def compare(services: Services, params: requests.Compare) -> Response:
    """Score how similar two images are.

    Each is in `image`, `url` or `filepath`, with its number. If either has no features to compare, such as a plain
    area, the score is 100 for equal pixels, else 0, and the reply is `warn` with the code `featureless`. The pixels of
    a stored image are not known.
    """
    client = client_of_request()
    with services.search_limit.acquire(client):
        comparison = services.search_images.compare(*params.pair, client=client)
    return _reply([{"score": comparison.score}], is_featureless=comparison.is_featureless)


def _reply(result: Sequence[Any], *, is_featureless: bool) -> Response:
    return warn(FEATURELESS, result) if is_featureless else ok(result)


ENDPOINTS = (
    Endpoint(
        name="search",
        path="/search",
        scope=Scope.READ,
        methods=("POST",),
        view=search,
        reply=Reply(result=replies.Match, extra={"code": replies.WarningCode}, errors=(404, 422, 503)),
        parameters=(requests.Search,),
        images=1,
    ),
    Endpoint(
        name="compare",
        path="/compare",
        scope=Scope.READ,
        methods=("POST",),
        view=compare,
        reply=Reply(result=replies.Comparison, extra={"code": replies.WarningCode}, errors=(404, 422, 503)),
        parameters=(requests.Compare,),
        images=2,
    ),
)
