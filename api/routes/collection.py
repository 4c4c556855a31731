"""What is stored: listed, counted, deleted."""

from time import time_ns

from flask import Response

from api import replies
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.forms import requests
from api.forms.parameters import cursor
from api.services import Services
from common.errors import StoreError, StoreUnavailable
from common.images.signature import is_featureless
from common.store.base import Tombstone, Verdict
from common.times import iso


def delete(services: Services, given: requests.Delete | requests.DeleteMany) -> Response:
    """Delete exactly these filepaths.

    Older requests for them, whenever they are worked off, change nothing any more. One that is not there is no error.
    The parameters may also come by form.
    """
    filepaths = [given.filepath] if isinstance(given, requests.Delete) else list(given.filepaths.values())
    # One request has one place in the order of requests, however many it deletes.
    seq, now = services.ledger.take_seq(), time_ns() // 1_000_000
    tombstones = [Tombstone(filepath=filepath, seq=seq, added=now) for filepath in dict.fromkeys(filepaths)]
    for written in services.store.put(tombstones):
        if written.verdict is Verdict.RETRY:
            raise StoreUnavailable(f"the store cannot delete now: {written.reason}")
        if written.verdict is Verdict.REJECTED:
            raise StoreError(written.reason)
    return ok()


def count(services: Services, given: requests.Count) -> Response:
    """Count the stored pictures."""
    return ok([services.store.count(where=given.filter)])


def list_(services: Services, given: requests.List) -> Response:
    """List filepaths in the order of the requests that stored them.

    The reply has the cursor to go on from: a walk from cursor to cursor meets every picture that stays as it is exactly
    once, whatever is written meanwhile.
    """
    if given.offset:
        page = services.store.filepaths(offset=given.offset, limit=given.limit, where=given.filter)
    else:
        page = services.store.filepaths_after(int(given.cursor or 0), limit=given.limit, where=given.filter)
    ends = len(page.filepaths) < given.limit
    return ok(page.filepaths, cursor=None if ends else cursor(requests.LIST, str(page.after)))


def images(services: Services, given: requests.Image) -> Response:
    """Tell what is stored under a filepath."""
    record = services.pictures.record(given.filepath, field="filepath")
    return ok(
        [
            {
                "filepath": record.filepath,
                "metadata": record.metadata,
                "added": iso(record.added),
                "width": record.width,
                "height": record.height,
                "featureless": is_featureless(record.signatures[0]),
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
        takes=(requests.Delete, requests.DeleteMany),
        items=requests.DELETE_MOST,
    ),
    Endpoint(
        name="count",
        path="/count",
        scope=Scope.READ,
        methods=("GET", "POST"),
        view=count,
        reply=Reply(result=replies.Count, errors=(503,)),
        takes=(requests.Count,),
    ),
    Endpoint(
        name="list",
        path="/list",
        scope=Scope.READ,
        methods=("GET", "POST"),
        view=list_,
        reply=Reply(result=replies.Filepath, added={"cursor": replies.Cursor}, errors=(503,)),
        takes=(requests.List,),
    ),
    Endpoint(
        name="images",
        path="/images",
        scope=Scope.READ,
        methods=("GET",),
        view=images,
        reply=Reply(result=replies.Image, errors=(404, 503)),
        takes=(requests.Image,),
    ),
)
