"""What is stored: listed, counted, deleted."""

from time import time_ns

from flask import Response

from api import requests
from api.endpoints import Endpoint
from api.envelope import ok
from api.services import Services
from common.errors import StoreError, StoreUnavailable
from common.store.base import Tombstone, Verdict


def delete(services: Services, given: requests.Delete) -> Response:
    """Delete exactly this filepath; older requests for it, whenever they arrive, change nothing any more."""
    tombstone = Tombstone(filepath=given.filepath, seq=services.ledger.take_seq(), added=time_ns() // 1_000_000)
    [written] = services.store.put([tombstone])
    if written.verdict is Verdict.HELD:
        raise StoreUnavailable(f"the store cannot delete now: {written.reason}")
    if written.verdict is Verdict.REFUSED:
        raise StoreError(written.reason)
    return ok()


def count(services: Services, _: requests.Nothing) -> Response:
    """Count the stored pictures."""
    return ok([services.store.count()])


def list_(services: Services, given: requests.List) -> Response:
    """List filepaths in the order of the requests that stored them."""
    return ok(services.store.filepaths(offset=given.offset, limit=given.limit))


ENDPOINTS = (
    Endpoint(name="delete", path="/delete", methods=("DELETE",), view=delete, takes=(requests.Delete,)),
    Endpoint(name="count", path="/count", methods=("GET", "POST"), view=count),
    Endpoint(name="list", path="/list", methods=("GET", "POST"), view=list_, takes=(requests.List,)),
)
