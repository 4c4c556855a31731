"""Metrics, for Prometheus."""

from flask import Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.access.authorization import check_all_collections
from api.access.keys import Scope
from api.endpoints import Endpoint, Reply
from api.forms import requests
from api.services import Services


def metrics(services: Services, _: requests.Nothing) -> Response:
    """Return the metrics of the API and the state of the service.

    The reply is in Prometheus's text format. While Redis or the store is unavailable, its metrics are left out. A key
    that is limited to some collections may not read them.
    """
    check_all_collections()
    return Response(services.metrics.text(), content_type=CONTENT_TYPE_PLAIN_0_0_4)


ENDPOINTS = (
    Endpoint(
        name="metrics",
        path="/metrics",
        scope=Scope.READ,
        methods=("GET",),
        view=metrics,
        is_rate_limited=False,
        reply=Reply(media_type="text/plain"),
    ),
)
