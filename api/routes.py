"""All endpoints, by subject."""

from collections.abc import Mapping, Sequence

from api import add_routes, batch_routes, collection_routes, health_routes, metrics_routes, search_routes, task_routes
from api.endpoints import Endpoint

SUBJECTS: Mapping[str, Sequence[Endpoint]] = {
    "Adding": (*add_routes.ENDPOINTS, *batch_routes.ENDPOINTS),
    "Searching": search_routes.ENDPOINTS,
    "Stored pictures": collection_routes.ENDPOINTS,
    "Tasks": task_routes.ENDPOINTS,
    "Health": (*health_routes.ENDPOINTS, *metrics_routes.ENDPOINTS),
}
ENDPOINTS = tuple(endpoint for endpoints in SUBJECTS.values() for endpoint in endpoints)
