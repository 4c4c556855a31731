"""DELETE /delete, GET /count, GET /list and GET /images: the stored images."""

from flask import Response

from api import replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.forms import requests
from api.forms.parameters import cursor
from api.services import Services
from common.local_search import has_few_features
from common.times import iso


def delete(services: Services, params: requests.Delete | requests.DeleteMany) -> Response:
    """Delete exactly these filepaths.

    An add that was accepted earlier and is stored later does not restore the image. An unknown filepath is not an
    error. The parameters may also be in a form.
    """
    filepaths = [params.filepath] if isinstance(params, requests.Delete) else params.filepaths.values()
    services.delete_images.delete(filepaths, collection=params.collection)
    return ok()


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


def images(services: Services, params: requests.Image) -> Response:
    """Return the record that is stored under a filepath."""
    record = services.search_images.record(params.filepath, collection=params.collection, field="filepath")
    return ok(
        [
            {
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
        ]
    )


ENDPOINTS = (
    Endpoint(
        name="delete",
        path="/delete",
        scope=Scope.WRITE,
        methods=("DELETE",),
        view=delete,
        reply=Reply(errors=(503,)),
        parameters=(requests.Delete, requests.DeleteMany),
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
        reply=Reply(result=replies.Image, errors=(404, 503)),
        parameters=(requests.Image,),
    ),
)
