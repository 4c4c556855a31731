"""GET /usage."""

from typing import Annotated

from flask import Response
from pydantic import Field

from api import replies
from api.access.collections import is_allowed, may_use_all
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.envelope import ok
from api.forms.parameters import Parameters, Whole
from api.services import Services
from common.queue.usage import MAX_DAYS, Counted, Label
from common.times import iso


class UsageOfDays(Parameters):
    """The days of which to return the use."""

    days: Annotated[
        int, Whole(1, MAX_DAYS), Field(description="Number of days (UTC), of which the current one is the last.")
    ] = 1


def usage(services: Services, params: UsageOfDays) -> Response:
    """Return the use of the service by API key and collection, the most requests first.

    The counts are those of all processes of the API, since 00:00 UTC of the first day. A request is counted within a
    second of its reply, for its collection only if that exists, or if the request added or searched there. `adds` are
    accepted images, and `searches` include the lines of batches. `bytes` are those of the bodies of requests and
    replies. Probes and `/metrics` are not counted. A day has up to 1,000 pairs of a key and a collection; the use of
    further ones has `*` for both.
    """
    use = services.usage.read(days=params.days)
    rows = [
        {
            "key": label.key,
            "collection": label.collection,
            **{counted.value: counts[counted] for counted in Counted},
        }
        for label, counts in sorted(use.counts.items(), key=lambda item: (-item[1][Counted.REQUESTS], str(item[0])))
        if _may_see(label)
    ]
    return ok(rows, since=iso(use.since), until=iso(use.until))


def _may_see(label: Label) -> bool:
    """Return whether the request's key may use the collection; a limited key sees no use without a collection."""
    return may_use_all() or (label.collection is not None and is_allowed(label.collection))


ENDPOINTS = (
    Endpoint(
        name="usage",
        path="/usage",
        scope=Scope.ADMIN,
        methods=("GET",),
        view=usage,
        reply=Reply(
            result=replies.Usage, extra={"since": replies.UsageTime, "until": replies.UsageTime}, errors=(503,)
        ),
        parameters=(UsageOfDays,),
    ),
)
