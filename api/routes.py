"""All endpoints, by subject."""

from api import add_routes, batch_routes, collection_routes, health_routes, search_routes, task_routes

ENDPOINTS = (
    *add_routes.ENDPOINTS,
    *batch_routes.ENDPOINTS,
    *search_routes.ENDPOINTS,
    *collection_routes.ENDPOINTS,
    *task_routes.ENDPOINTS,
    *health_routes.ENDPOINTS,
)
