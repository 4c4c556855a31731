"""The web page: HTML for people, rendered from the replies of the API's own views.

While the API has no keys, its pages work without JavaScript; `static/match.js` adds what HTML lacks.
"""

from api.endpoints import Endpoint
from api.web import collection, compare, duplicates, preview, queue, search, static, status
from api.web.failures import init_app

__all__ = ["ENDPOINTS", "init_app"]

ENDPOINTS: tuple[Endpoint, ...] = (
    *search.ENDPOINTS,
    *compare.ENDPOINTS,
    *collection.ENDPOINTS,
    *duplicates.ENDPOINTS,
    *preview.ENDPOINTS,
    *queue.ENDPOINTS,
    *status.ENDPOINTS,
    *static.ENDPOINTS,
)
