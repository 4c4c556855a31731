"""POST /search and POST /compare."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flask import Response

from api import replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok, warn
from api.forms import requests
from api.rate_limits import client_of_request
from api.services import Services
from api.usage import count
from common.config import Settings
from common.images.local_features.geometry import Verification
from common.modes import Mode
from common.queue.usage import Counted
from common.search import Match, MatchedBy, SearchOptions
from common.warning_codes import FEATURELESS

# More digits of a score carry no information: a recompression already changes the second one.
PERCENT_DIGITS = 2
# A thousandth of a pixel at the far side of an image of a thousand pixels.
TRANSFORM_DIGITS = 6


def search(services: Services, params: requests.Search) -> Response:
    """Find an image, its near-duplicates, and images that share a part with it, best first.

    The image is in `image`, `url` or `filepath`. Without `min_score` matches score above 55 in the image's own
    orientation, and above 57.1 in the others: about 1 pair of unrelated photographs in 100,000 does. Flat content,
    like pages and icons, has stricter cutoffs. By local features, crops and screenshots match from 55. An image without
    features, such as a plain area or a smooth gradient, has no matches: `warn` with the code `featureless`.
    """
    settings = services.settings
    result = services.search_images.search(
        params.source,
        options_of(params, settings),
        client=client_of_request(),
        mode=params.mode or settings.search_mode,
    )
    count(Counted.SEARCHES, 1, collection=params.collection)
    matches = [match_json(match) for match in result.matches]
    return _reply(matches, result.mode, is_featureless=result.is_featureless)


def options_of(params: requests.Matching, settings: Settings) -> SearchOptions:
    """Return the options of a search by its parameters."""
    all_orientations = params.all_orientations
    return SearchOptions(
        all_orientations=settings.all_orientations if all_orientations is None else all_orientations,
        limit=params.limit,
        offset=params.offset,
        min_score=params.min_score,
        selection=params.selection,
    )


def match_json(match: Match) -> dict[str, Any]:
    """Return a match as clients read it."""
    return {
        "score": round(match.score, PERCENT_DIGITS),
        "filepath": match.filepath,
        "metadata": match.metadata,
        "orientation": match.orientation,
        **_placement(match.matched_by, match.verification),
    }


def compare(services: Services, params: requests.Compare) -> Response:
    """Score how similar two images are.

    Each is in `image`, `url` or `filepath`, with its number. If either has no features to compare, such as a plain
    area, the score is 100 for equal pixels, else 0, and the reply is `warn` with the code `featureless`. The pixels of
    a stored image are not known. Local features match if one image shows a part of the other.
    """
    comparison, mode = services.search_images.compare(
        *params.pair, client=client_of_request(), mode=params.mode or services.settings.search_mode
    )
    result = {
        "score": round(comparison.score, PERCENT_DIGITS),
        **_placement(comparison.matched_by, comparison.verification),
    }
    return _reply([result], mode, is_featureless=comparison.is_featureless)


def _placement(matched_by: MatchedBy, verification: Verification | None) -> dict[str, Any]:
    """Return the keys about the way of comparing, and about the place of the stored image in the query."""
    if verification is None:
        return {"matched_by": matched_by}
    return {
        "matched_by": matched_by,
        "query_overlap_percent": round(verification.query_overlap_percent, PERCENT_DIGITS),
        "target_overlap_percent": round(verification.target_overlap_percent, PERCENT_DIGITS),
        "transform": {key: round(value, TRANSFORM_DIGITS) for key, value in asdict(verification.transform).items()},
    }


def _reply(result: Sequence[Any], mode: Mode, *, is_featureless: bool) -> Response:
    return warn(FEATURELESS, result, mode=mode) if is_featureless else ok(result, mode=mode)


ENDPOINTS = (
    Endpoint(
        name="search",
        path="/search",
        scope=Scope.READ,
        methods=("POST",),
        view=search,
        reply=Reply(
            result=replies.Match, extra={"mode": replies.Mode, "code": replies.WarningCode}, errors=(404, 422, 503)
        ),
        parameters=(requests.Search,),
        images=1,
    ),
    Endpoint(
        name="compare",
        path="/compare",
        scope=Scope.READ,
        methods=("POST",),
        view=compare,
        reply=Reply(
            result=replies.Comparison, extra={"mode": replies.Mode, "code": replies.WarningCode}, errors=(404, 422, 503)
        ),
        parameters=(requests.Compare,),
        images=2,
    ),
)
