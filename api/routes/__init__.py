"""All endpoints, by subject."""

from collections.abc import Mapping, Sequence

from api.endpoints import Endpoint
from api.routes import add, batch, collections, health, metrics, search, search_batch, stored_images, tasks, thumbnail

SUBJECTS: Mapping[str, Sequence[Endpoint]] = {
    "Adding": (*add.ENDPOINTS, *batch.ENDPOINTS),
    "Searching": (*search.ENDPOINTS, *search_batch.ENDPOINTS),
    "Stored images": (*stored_images.ENDPOINTS, *thumbnail.ENDPOINTS),
    "Collections": collections.ENDPOINTS,
    "Tasks": tasks.ENDPOINTS,
    "Health": (*health.ENDPOINTS, *metrics.ENDPOINTS),
}
ENDPOINTS = tuple(endpoint for endpoints in SUBJECTS.values() for endpoint in endpoints)
