"""The clients of both products: each sends a request and returns the response, or raises elasticsearch-py's errors."""

import re
from collections.abc import Mapping
from typing import Any, Protocol, Self

from elastic_transport import Transport
from elasticsearch import ApiError, Elasticsearch

JSON, LINES = "application/json", "application/x-ndjson"
FIRST_FAILURE = 300


class Client(Protocol):
    """The client of one cluster."""

    def send(self, method: str, target: str, *, body: object = None, media_type: str = JSON) -> Any:  # noqa: ANN401 - JSON
        """Send a request and return the response's body; JSON is encoded and decoded, bytes are sent unchanged."""

    def within(self, seconds: float) -> Self:
        """Return the same client with another time-out."""


class ElasticsearchClient:
    """elasticsearch-py: it checks the product and agrees with the server on the version of the API."""

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client

    def send(self, method: str, target: str, *, body: object = None, media_type: str = JSON) -> Any:  # noqa: ANN401 - JSON
        """Send a request; its span has the name of the operation."""
        headers = _headers(body, media_type)
        return self._client.perform_request(
            method, target, headers=headers, body=body, endpoint_id=_operation(target)
        ).body

    def within(self, seconds: float) -> "ElasticsearchClient":
        """Return the same client with another time-out."""
        return ElasticsearchClient(self._client.options(request_timeout=seconds))


class TransportClient:
    """The transport below elasticsearch-py, for a product that elasticsearch-py rejects.

    `retries` are elasticsearch-py's options of that kind. The transport itself does not know those of its client.
    """

    def __init__(
        self, transport: Transport, *, headers: Mapping[str, str], timeout_s: float, retries: Mapping[str, Any]
    ) -> None:
        self._transport = transport
        self._login = headers
        self._timeout_s = timeout_s
        self._retries = retries

    def send(self, method: str, target: str, *, body: object = None, media_type: str = JSON) -> Any:  # noqa: ANN401 - JSON
        """Send a request."""
        headers = {**self._login, **_headers(body, media_type)}
        meta, result = self._transport.perform_request(
            method, target, headers=headers, body=body, request_timeout=self._timeout_s, **self._retries
        )
        if meta.status >= FIRST_FAILURE:
            raise ApiError(str(result), meta, result)
        return result

    def within(self, seconds: float) -> "TransportClient":
        """Return the same client with another time-out."""
        return TransportClient(self._transport, headers=self._login, timeout_s=seconds, retries=self._retries)


def _headers(body: object, media_type: str) -> dict[str, str]:
    return {"accept": JSON} if body is None else {"accept": JSON, "content-type": media_type}


def _operation(target: str) -> str | None:
    """Return the operation in a target, None if it is the index itself.

    >>> _operation("/images/_search")
    'search'
    """
    match = re.search(r"/_([a-z]+)", target)
    return match and match[1]
