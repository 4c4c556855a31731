"""The context that all tasks of the current request share."""

from flask import g

from api import callbacks
from api.forms import requests
from api.services import Services
from common.queue.jobs import RequestContext


def request_context(services: Services, params: requests.Enqueuing, *, form: str) -> RequestContext:
    """Return the context; raises InputError for a callback URL to which no webhook can be sent."""
    callback_url = callbacks.validated(services, params.callback_url)
    return RequestContext(request_id=g.request_id, form=form, callback_url=callback_url)
