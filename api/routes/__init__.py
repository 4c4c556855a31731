"""All endpoints, by subject."""

from collections.abc import Mapping, Sequence

from api.endpoints import Endpoint
from api.routes import add as add_routes
from api.routes import batch as batch_routes
from api.routes import collection as collection_routes
from api.routes import health as health_routes
from api.routes import metrics as metrics_routes
from api.routes import search as search_routes
from api.routes import tasks as task_routes

SUBJECTS: Mapping[str, Sequence[Endpoint]] = {
    "Adding": (*add_routes.ENDPOINTS, *batch_routes.ENDPOINTS),
    "Searching": search_routes.ENDPOINTS,
    "Stored pictures": collection_routes.ENDPOINTS,
    "Tasks": task_routes.ENDPOINTS,
    "Health": (*health_routes.ENDPOINTS, *metrics_routes.ENDPOINTS),
}
ENDPOINTS = tuple(endpoint for endpoints in SUBJECTS.values() for endpoint in endpoints)
