"""Batches: their progress, lists and cancellation."""

from typing import Annotated

from flask import Response
from pydantic import Field

from api import replies
from api.access.collections import is_allowed
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.errors import ERRORS
from api.forms.parameters import Cursor, InCollection, InPath, Parameters, Whole, cursor
from api.services import Services
from common.errors import InputError
from common.queue.batch_json import batch_json
from common.queue.batches import CURSOR, Batch

# The kind of their cursors.
BATCHES = "batches"
MAX_LISTED = 1000


class UnknownBatch(InputError):
    """The batch does not exist any more, or the API key may not use its collection."""

    code = "unknown_batch"

    def __init__(self, field: str) -> None:
        super().__init__(ERRORS[self.code].text, field=field)


class OneBatch(Parameters):
    """A batch by its id."""

    id: Annotated[str, InPath(), Field(description="The id of the batch, from `X-Batch-ID` or an outcome.")]


class ListBatches(InCollection):
    """A page of the batches of a collection."""

    cursor: Annotated[
        Annotated[str, Cursor(BATCHES, CURSOR)] | None,
        Field(description="The `cursor` of the previous reply; empty at the start."),
    ] = None
    limit: Annotated[int, Whole(1, MAX_LISTED), Field(description="Maximum number of batches.")] = 20


def batches(services: Services, params: ListBatches) -> Response:
    """List the batches of a collection, the newest first.

    The `cursor` of the reply is that of the next page.
    """
    page = services.batches.page(params.collection, limit=params.limit, cursor=params.cursor or None)
    following = None if page.cursor is None else cursor(BATCHES, page.cursor)
    return ok([batch_json(batch) for batch in page.batches], cursor=following)


def batch(services: Services, params: OneBatch) -> Response:
    """Return the progress of a batch.

    The tasks are counted by state, and the failures by code. A client whose connection broke can ask with the
    `X-Batch-ID` that it chose: `total` counts what was accepted.
    """
    return ok([batch_json(visible_batch(services, params.id))])


def cancel_batch(services: Services, params: OneBatch) -> Response:
    """Cancel the pending tasks of a batch.

    Running tasks end as usual. Of a large batch, `pending` tasks may remain in the reply: workers cancel them instead
    of beginning them. The batch accepts no more images. An ended batch is unchanged.
    """
    return ok([batch_json(services.manage_batches.cancel(visible_batch(services, params.id)))])


def visible_batch(services: Services, batch_id: str, *, field: str = "id") -> Batch:
    """Return the batch; raises UnknownBatch if it is unknown, or the API key may not use its collection."""
    existing = services.batches.get(batch_id)
    if existing is None or not is_allowed(existing.collection):
        raise UnknownBatch(field)
    return existing


ENDPOINTS = (
    Endpoint(
        name="batches",
        path="/batches",
        scope=Scope.READ,
        methods=("GET",),
        view=batches,
        reply=Reply(result=replies.Batch, extra={"cursor": replies.Cursor}, errors=(503,)),
        parameters=(ListBatches,),
    ),
    Endpoint(
        name="one_batch",
        path="/batches/<id>",
        scope=Scope.READ,
        methods=("GET",),
        view=batch,
        reply=Reply(result=replies.Batch, errors=(404, 503)),
        parameters=(OneBatch,),
    ),
    Endpoint(
        name="cancel_batch",
        path="/batches/<id>",
        scope=Scope.WRITE,
        methods=("DELETE",),
        view=cancel_batch,
        reply=Reply(result=replies.Batch, errors=(404, 503)),
        parameters=(OneBatch,),
    ),
)
