"""Requests to a cluster in five verbs, the same for both products."""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from common.errors import StoreUnavailable
from common.store.elastic.clients import JSON, LINES, Client
from common.store.elastic.dialects import Dialect, Json
from common.store.elastic.responses import reason, wrap_errors


class Cluster:
    """A cluster, its client and its dialect. Each verb raises StoreUnavailable if a retry may succeed, or StoreError.

    `parameters` are those of the URL's query. `product` is its name in messages, by default that of the dialect.
    """

    def __init__(self, client: Client, dialect: Dialect, *, product: str | None = None) -> None:
        self._client = client
        self._product = product or dialect.product
        self.dialect = dialect

    def within(self, seconds: float) -> "Cluster":
        """Return the same cluster with another time-out."""
        return Cluster(self._client.within(seconds), self.dialect, product=self._product)

    def get(self, path: str, **parameters: str) -> Json:
        """Return the resource at `path`."""
        return self._send("GET", path, parameters)

    def put(self, path: str, body: Json | None = None, **parameters: str) -> Json:
        """Create or change the resource at `path`."""
        return self._send("PUT", path, parameters, body)

    def post(self, path: str, body: Json | None = None, **parameters: str) -> Json:
        """Search, or run an operation."""
        return self._send("POST", path, parameters, body)

    def post_lines(self, path: str, lines: Iterable[str], **parameters: str) -> Json:
        """Send lines of JSON, each with its line feed."""
        return self._send("POST", path, parameters, "".join(lines).encode(), LINES)

    def delete(self, path: str, **parameters: str) -> Json:
        """Delete the resource at `path`."""
        return self._send("DELETE", path, parameters)

    def documents(self, index: str, ids: Sequence[str], **parameters: str) -> list[Json]:
        """Return a document for each id, also those that are not refreshed yet; `found` is false where none exists.

        Raises StoreUnavailable if a shard of them does not answer.
        """
        docs = self.documents_or_errors(index, ids, **parameters)
        if errors := [doc["error"] for doc in docs if "error" in doc]:
            raise StoreUnavailable(reason(errors[0]))
        return docs

    def documents_or_errors(self, index: str, ids: Sequence[str], **parameters: str) -> list[Json]:
        """Return the same; a document whose shard does not answer has an `error`."""
        docs: list[Json] = self.post(f"/{index}/_mget", {"ids": list(ids)}, **parameters)["docs"]
        return docs

    def _send(
        self, method: str, path: str, parameters: dict[str, str], body: Json | bytes | None = None, kind: str = JSON
    ) -> Json:
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        with wrap_errors(self._product):
            response: Any = self._client.send(method, target, body=body, media_type=kind)
        return response or {}
