"""The index behind the alias: created if absent, and checked before use."""

from time import monotonic, sleep

from elasticsearch import ApiError, Elasticsearch

from common.errors import StoreError, StoreUnavailable
from common.store.elastic.connection import require_elasticsearch
from common.store.elastic.mapping import Shape, why_unusable
from common.store.elastic.responses import is_whole, wrap_errors

# The shards of a new index start within a second; those of a large one need longer after a restart.
COMPLETE_WITHIN_S = 30.0
PAUSE_S = 0.1
INCOMPLETE = "Elasticsearch: some shards of the index are not active"


class Index:
    """The index behind the alias `name`; a new one has the settings and mapping of `shape`."""

    def __init__(self, client: Elasticsearch, name: str, *, shape: Shape) -> None:
        self.name = name
        self._client = client
        self._shape = shape
        self._known = False

    def prepare(self) -> None:
        """Create index and alias in one step if absent, and wait until all shards are active."""
        self._known = False
        if not self.exists():
            self._create()
        deadline = monotonic() + COMPLETE_WITHIN_S
        while not self.is_complete():
            if monotonic() > deadline:
                raise StoreUnavailable(INCOMPLETE)
            sleep(PAUSE_S)

    def is_complete(self) -> bool:
        """Return whether every shard has an active primary."""
        with wrap_errors():
            health = self._client.cluster.health(index=self.name, level="indices", timeout="1s")["indices"]
        # Not the status: it is yellow while the first shards are still being created.
        return bool(health) and all(one["active_primary_shards"] == one["number_of_shards"] for one in health.values())

    def answers_searches(self, *, within_s: float) -> bool:
        """Return whether every shard responds to searches."""
        with wrap_errors():
            return is_whole(self._within(within_s).count(index=self.name).body)

    def why_no_writes(self, *, within_s: float) -> str:
        """Return the reason why writes fail, in one line, or ""."""
        client = self._within(within_s)
        try:
            with wrap_errors():
                # The master responds to this request: without a master every write fails.
                client.cluster.health(index=self.name, timeout="1s")
                settings = client.indices.get_settings(index=self.name, name="index.blocks.*", flat_settings=True)
        except StoreError as error:
            return str(error)
        blocks = {name for one in settings.values() for name, on in one["settings"].items() if on == "true"}
        return ", ".join(sorted(blocks))

    def exists(self, *, within_s: float | None = None) -> bool:
        """Return whether the index exists; after the first success without a request.

        Raises StoreError if the name belongs to an incompatible index.
        """
        if self._known:
            return True
        client = self._within(within_s)
        with wrap_errors():
            require_elasticsearch(client)
            indices = client.indices.get(index=self.name, ignore_unavailable=True).body
        if not indices:
            return False
        if reason := why_unusable(self.name, indices):
            raise StoreError(reason)
        self._known = True
        return True

    def check(self) -> None:
        """Raise StoreError like `exists`; if the index is absent, the caller's next request raises."""
        self.exists()

    def _within(self, seconds: float | None) -> Elasticsearch:
        return self._client.options(request_timeout=seconds) if seconds else self._client

    def _create(self) -> None:
        with wrap_errors():
            try:
                self._client.indices.create(
                    index=f"{self.name}-1",
                    aliases={self.name: {"is_write_index": True}},
                    mappings=self._shape.mappings(),
                    settings=self._shape.settings(),
                )
            except ApiError:
                # Another process may have created it first; any other cause is for the operator.
                if not self.exists():
                    raise
