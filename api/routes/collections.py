"""Collections: list, create, limit and delete them."""

from typing import Any

from flask import Response, g

from api import replies
from api.access.collections import check_allowed, is_allowed
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.forms import requests
from api.services import Services
from common.queue.jobs import RequestContext
from common.queue.task_json import task_json
from common.store.base import Collection

# The parameter in the path.
FIELD = "name"


def collections(services: Services, params: requests.Nothing) -> Response:
    """List the collections that the API key may use, by name.

    The collection `default` always exists.
    """
    del params
    return ok([_json(collection) for collection in services.store.collections() if is_allowed(collection.name)])


def collection(services: Services, params: requests.Collection) -> Response:
    """Return a collection."""
    check_allowed(params.name, field=FIELD)
    return ok([_json(services.collections.get(params.name, field=FIELD))])


def put_collection(services: Services, params: requests.PutCollection) -> Response:
    """Create a collection, or change its quota.

    The first add to a collection creates it as well, without a quota. All processes apply a new quota within a second.
    Images that are stored already stay.
    """
    check_allowed(params.name, field=FIELD)
    existing, is_new = services.collections.put(params.name, max_images=params.max_images)
    return ok([_json(existing)], http_status=201 if is_new else 200)


def delete_collection(services: Services, params: requests.Collection) -> Response:
    """Delete a collection with all its images.

    The task of the reply ends when they are deleted. It includes the adds that were accepted before: those that a
    worker has not begun end as `superseded`. A later add creates the collection again. `default` only becomes empty.
    """
    check_allowed(params.name, field=FIELD)
    task = services.collections.delete(params.name, RequestContext(request_id=g.request_id))
    response = ok(http_status=202, task=task_json(task))
    response.headers["Location"] = f"/tasks/{task.id}"
    return response


def _json(existing: Collection) -> dict[str, Any]:
    return {"name": existing.name, "images": existing.images, "max_images": existing.max_images}


ENDPOINTS = (
    Endpoint(
        name="collections",
        path="/collections",
        scope=Scope.READ,
        methods=("GET",),
        view=collections,
        reply=Reply(result=replies.CollectionState, errors=(503,)),
    ),
    Endpoint(
        name="collection",
        path="/collections/<name>",
        scope=Scope.READ,
        methods=("GET",),
        view=collection,
        reply=Reply(result=replies.CollectionState, errors=(404, 503)),
        parameters=(requests.Collection,),
    ),
    Endpoint(
        name="put_collection",
        path="/collections/<name>",
        scope=Scope.ADMIN,
        methods=("PUT",),
        view=put_collection,
        reply=Reply(result=replies.CollectionState, statuses=(200, 201), errors=(404, 503)),
        parameters=(requests.PutCollection,),
    ),
    Endpoint(
        name="delete_collection",
        path="/collections/<name>",
        scope=Scope.ADMIN,
        methods=("DELETE",),
        view=delete_collection,
        reply=Reply(extra={"task": replies.OneTask}, statuses=(202,), errors=(404, 503)),
        parameters=(requests.Collection,),
    ),
)
