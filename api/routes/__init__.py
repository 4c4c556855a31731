"""All endpoints, by subject."""

from collections.abc import Mapping, Sequence

from api.endpoints import Endpoint
from api.routes import (
    add,
    batch,
    batches,
    collections,
    health,
    metrics,
    search,
    search_batch,
    stored_images,
    tasks,
    thumbnail,
    usage,
)

SUBJECTS: Mapping[str, Sequence[Endpoint]] = {
    "Adding": (*add.ENDPOINTS, *batch.ENDPOINTS),
    "Searching": (*search.ENDPOINTS, *search_batch.ENDPOINTS),
    "Stored images": (*stored_images.ENDPOINTS, *thumbnail.ENDPOINTS),
    "Collections": collections.ENDPOINTS,
    "Batches": batches.ENDPOINTS,
    "Tasks": tasks.ENDPOINTS,
    "Health": (*health.ENDPOINTS, *metrics.ENDPOINTS, *usage.ENDPOINTS),
}
ENDPOINTS = tuple(endpoint for endpoints in SUBJECTS.values() for endpoint in endpoints)
