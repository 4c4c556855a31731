"""All endpoints, by subject."""

from collections.abc import Mapping, Sequence

from api.endpoints import Endpoint
from api.routes import add, batch, collection, health, metrics, search, tasks, thumbnail

SUBJECTS: Mapping[str, Sequence[Endpoint]] = {
    "Adding": (*add.ENDPOINTS, *batch.ENDPOINTS),
    "Searching": search.ENDPOINTS,
    "Stored images": (*collection.ENDPOINTS, *thumbnail.ENDPOINTS),
    "Tasks": tasks.ENDPOINTS,
    "Health": (*health.ENDPOINTS, *metrics.ENDPOINTS),
}
ENDPOINTS = tuple(endpoint for endpoints in SUBJECTS.values() for endpoint in endpoints)
