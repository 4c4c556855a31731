"""The index behind the alias: created where it is absent, left alone where it is not ours."""

from elasticsearch import ApiError, Elasticsearch

from common.errors import StoreError
from common.store.elastic.connection import our_errors, require_elasticsearch
from common.store.elastic.mapping import Shape, misfit


class Index:
    """The index behind the alias `name`; a new one is made in the form `shape`."""

    def __init__(self, client: Elasticsearch, name: str, *, shape: Shape) -> None:
        self.name = name
        self._client = client
        self._shape = shape
        self._known = False

    def prepare(self) -> None:
        """Create index and alias in one step where absent, and wait until the index answers."""
        self._known = False
        if not self.stands():
            self._create()
        with our_errors():
            self._client.cluster.health(index=self.name, wait_for_status="yellow")

    def stands(self, *, within_s: float | None = None) -> bool:
        """Say whether the index is there; asked once, until it is.

        Raises StoreError where something else stands in its place, or where it does not fit.
        """
        if self._known:
            return True
        client = self._client.options(request_timeout=within_s) if within_s else self._client
        with our_errors():
            require_elasticsearch(client)
            standing = client.indices.get(index=self.name, ignore_unavailable=True).body
        if not standing:
            return False
        if reason := misfit(self.name, standing):
            raise StoreError(reason)
        self._known = True
        return True

    def _create(self) -> None:
        with our_errors():
            try:
                self._client.indices.create(
                    index=f"{self.name}-1",
                    aliases={self.name: {"is_write_index": True}},
                    mappings=self._shape.mappings(),
                    settings=self._shape.settings(),
                )
            except ApiError:
                # Another process may have been quicker; what else stands in the way is for the operator.
                if not self.stands():
                    raise
