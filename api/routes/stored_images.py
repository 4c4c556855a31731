"""DELETE /delete, GET /count, GET /list, GET and PATCH /images: the stored images."""

from typing import Any

from flask import Response, g

from api import replies
from api.access.authorization import check_scope, has_scope
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.forms import requests
from api.forms.parameters import cursor
from api.services import Services
from common.local_search import has_few_features
from common.queue.jobs import RequestContext
from common.queue.task_json import task_json
from common.store.base import Record
from common.times import iso


def delete(services: Services, params: requests.Delete | requests.DeleteMany | requests.DeleteSelected) -> Response:
    """Delete exactly these filepaths, or all images of a selection.

    An add that was accepted earlier and is stored later does not restore the image. An unknown filepath is not an
    error. The parameters may also be in a form.

    `filepath_prefix` and `filter` select images, and need the scope `admin`. The reply is a 202 with a task, which
    deletes them as a batch with the adds that were accepted before. Later adds are kept. With `dry_run` the result is
    the number of images, and nothing is deleted.
    """
    if isinstance(params, requests.DeleteSelected):
        return _delete_selected(services, params)
    filepaths = [params.filepath] if isinstance(params, requests.Delete) else params.filepaths.values()
    services.delete_images.delete(filepaths, collection=params.collection)
    return ok()


def _delete_selected(services: Services, params: requests.DeleteSelected) -> Response:
    check_scope(Scope.ADMIN)
    if params.dry_run:
        return ok([services.delete_selected.count(params.selection, expected=params.expect)])
    context = RequestContext(request_id=g.request_id)
    owner = "" if g.key is None else g.key.name
    task = services.delete_selected.delete(params.selection, context, owner=owner, expected=params.expect)
    response = ok(http_status=202, task=task_json(task))
    response.headers["Location"] = f"/tasks/{task.id}"
    return response


def count(services: Services, params: requests.Count) -> Response:
    """Count the stored images."""
    return ok([services.store.count(selection=params.selection)])


def list_(services: Services, params: requests.List) -> Response:
    """List filepaths, oldest request first.

    Each reply has the cursor of the next page. The pages together contain every image that does not change in the
    meantime exactly once.
    """
    selection, limit = params.selection, params.limit
    if params.offset:
        page = services.store.filepaths(offset=params.offset, limit=limit, selection=selection)
    else:
        page = services.store.filepaths_after(int(params.cursor or 0), limit=limit, selection=selection)
    ends = len(page.filepaths) < params.limit
    return ok(page.filepaths, cursor=None if ends else cursor(requests.LIST, str(page.after)))


def images(services: Services, params: requests.Image | requests.Images) -> Response:
    """Return the record that is stored under a filepath, or records in pages.

    Without `filepath`, pages have the order of `/list`, and each reply has the cursor of the next page. The pages
    together contain every image that does not change in the meantime exactly once.
    """
    if isinstance(params, requests.Images):
        return _page(services, params)
    record = services.search_images.record(params.filepath, collection=params.collection, field="filepath")
    return ok([record_json(record)])


def patch_image(services: Services, params: requests.PatchImage) -> Response:
    """Change the metadata of an image.

    The order is that of acceptance. An add that was accepted earlier and is stored later gets the patch. A later add
    replaces all, and an image that was deleted later stays deleted. If the image is not stored yet, the reply is a 202
    without a result. The image keeps its place in lists. A key without the scope `read` gets null as metadata.
    """
    patched = services.patch_images.patch(params.filepath, params.metadata, collection=params.collection)
    if not patched.is_stored:
        return ok(http_status=202)
    metadata = patched.metadata if has_scope(Scope.READ) else None
    return ok([{"collection": params.collection, "filepath": params.filepath, "metadata": metadata}])


def _page(services: Services, params: requests.Images) -> Response:
    page = services.store.filepaths_after(int(params.cursor or 0), limit=params.limit, selection=params.selection)
    records = services.store.records(page.filepaths, collection=params.collection)
    ends = len(page.filepaths) < params.limit
    return ok(
        # A record may have been deleted after the page was read.
        [record_json(records[filepath]) for filepath in page.filepaths if filepath in records],
        cursor=None if ends else cursor(requests.RECORDS, str(page.after)),
    )


def record_json(record: Record) -> dict[str, Any]:
    """Return the JSON of a record."""
    return {
        "collection": record.collection,
        "filepath": record.filepath,
        "metadata": record.metadata,
        "added": iso(record.added),
        "width": record.width,
        "height": record.height,
        "featureless": record.is_featureless,
        "few_features": has_few_features(record),
        "url": record.url,
        "sha256": None if record.sha256 is None else record.sha256.hex(),
    }


ENDPOINTS = (
    Endpoint(
        name="delete",
        path="/delete",
        scope=Scope.WRITE,
        methods=("DELETE",),
        view=delete,
        reply=Reply(result=replies.Count, extra={"task": replies.DeletionTask}, statuses=(200, 202), errors=(409, 503)),
        parameters=(requests.Delete, requests.DeleteMany, requests.DeleteSelected),
        items=requests.MAX_DELETES,
    ),
    Endpoint(
        name="count",
        path="/count",
        scope=Scope.READ,
        methods=("GET", "POST"),
        view=count,
        reply=Reply(result=replies.Count, errors=(503,)),
        parameters=(requests.Count,),
    ),
    Endpoint(
        name="list",
        path="/list",
        scope=Scope.READ,
        methods=("GET", "POST"),
        view=list_,
        reply=Reply(result=replies.Filepath, extra={"cursor": replies.Cursor}, errors=(503,)),
        parameters=(requests.List,),
    ),
    Endpoint(
        name="images",
        path="/images",
        scope=Scope.READ,
        methods=("GET",),
        view=images,
        reply=Reply(result=replies.Image, extra={"cursor": replies.PageCursor}, errors=(404, 503)),
        parameters=(requests.Images, requests.Image),
    ),
    Endpoint(
        name="patch_image",
        path="/images",
        scope=Scope.WRITE,
        methods=("PATCH",),
        view=patch_image,
        reply=Reply(result=replies.PatchedImage, statuses=(200, 202), errors=(404, 503)),
        parameters=(requests.PatchImage,),
    ),
)
