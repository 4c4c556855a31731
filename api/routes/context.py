"""The context that all tasks of the current request share, and their batches."""

from flask import g

from api import callbacks
from api.forms import requests
from api.services import Services
from api.use_cases.idempotency import IdempotencyKey
from api.use_cases.request_batches import RequestBatches
from common.queue.jobs import RequestContext


def request_context(services: Services, params: requests.Enqueuing, *, form: str) -> RequestContext:
    """Return the context; raises InputError for a callback URL to which no webhook can be sent."""
    callback_url = callbacks.validated(services, params.callback_url)
    return RequestContext(request_id=g.request_id, form=form, callback_url=callback_url)


def request_batches(
    services: Services, params: requests.InBatch, *, collection: str, context: RequestContext, key: IdempotencyKey
) -> RequestBatches:
    """Return the batches of a request for many images; that of `collection` has the id which the client chose."""
    return RequestBatches(
        services.batches,
        services.ledger,
        context,
        key,
        collection,
        owner=g.key.name if g.key is not None else "",
        chosen=params.batch_id,
    )
