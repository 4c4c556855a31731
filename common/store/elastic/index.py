"""The index behind the alias: created where it is absent, left alone where it is not ours."""

from time import monotonic, sleep

from elasticsearch import ApiError, Elasticsearch

from common.errors import StoreError, StoreUnavailable
from common.store.elastic.answers import is_whole, our_errors
from common.store.elastic.connection import require_elasticsearch
from common.store.elastic.mapping import Shape, why_unusable

# Shards of a new index are there within a second, those of a large one some time after a restart.
COMPLETE_WITHIN_S = 30.0
PAUSE_S = 0.1
INCOMPLETE = "Elasticsearch: a part of the index is missing"


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
        if not self.exists():
            self._create()
        deadline = monotonic() + COMPLETE_WITHIN_S
        while not self.is_complete():
            if monotonic() > deadline:
                raise StoreUnavailable(INCOMPLETE)
            sleep(PAUSE_S)

    def is_complete(self) -> bool:
        """Say whether every part of the index has a copy that takes writes."""
        with our_errors():
            told = self._client.cluster.health(index=self.name, level="indices", timeout="1s")["indices"]
        # Not by its status: an index is called yellow while its first shards are still being made.
        return bool(told) and all(one["active_primary_shards"] == one["number_of_shards"] for one in told.values())

    def answers_searches(self, *, within_s: float) -> bool:
        """Say whether every part of the index answers searches."""
        with our_errors():
            return is_whole(self._within(within_s).count(index=self.name).body)

    def why_no_writes(self, *, within_s: float) -> str:
        """Say in one line what keeps writes away, or nothing."""
        client = self._within(within_s)
        try:
            with our_errors():
                # Answered by the master: without one nothing is written.
                client.cluster.health(index=self.name, timeout="1s")
                told = client.indices.get_settings(index=self.name, name="index.blocks.*", flat_settings=True)
        except StoreError as error:
            return str(error)
        blocks = {name for one in told.values() for name, on in one["settings"].items() if on == "true"}
        return ", ".join(sorted(blocks))

    def exists(self, *, within_s: float | None = None) -> bool:
        """Say whether the index is there; asked once, until it is.

        Raises StoreError where something else stands in its place, or where it does not fit.
        """
        if self._known:
            return True
        client = self._within(within_s)
        with our_errors():
            require_elasticsearch(client)
            indices = client.indices.get(index=self.name, ignore_unavailable=True).body
        if not indices:
            return False
        if reason := why_unusable(self.name, indices):
            raise StoreError(reason)
        self._known = True
        return True

    def check(self) -> None:
        """Raise StoreError where `exists` does; where nothing is there yet, the call that follows will tell."""
        self.exists()

    def _within(self, seconds: float | None) -> Elasticsearch:
        return self._client.options(request_timeout=seconds) if seconds else self._client

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
                if not self.exists():
                    raise
