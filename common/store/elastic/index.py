"""The index behind the alias: created if absent, checked before use, and given the fields that it lacks."""

from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic, sleep

from common.errors import StoreError, StoreUnavailable
from common.store.elastic import mapping
from common.store.elastic.cluster import Cluster
from common.store.elastic.connection import Connection
from common.store.elastic.dialects import Json, Vectors
from common.store.elastic.mapping import Shape, why_unusable
from common.store.elastic.responses import is_whole

# The shards of a new index start within a second; those of a large one need longer after a restart.
COMPLETE_WITHIN_S = 30.0
PAUSE_S = 0.1
INCOMPLETE = "some shards of the index are not active"


@dataclass(frozen=True, slots=True)
class Existing:
    """The index behind the alias as it was checked: its own name, its vectors, and the fields and settings to add."""

    name: str
    vectors: Vectors
    missing: dict[str, Json]
    missing_settings: dict[str, str]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return not (self.missing or self.missing_settings)


class Index:
    """The index behind the alias `name`; a new one has the settings and mapping of `shape`."""

    def __init__(self, connection: Connection, name: str, *, shape: Shape) -> None:
        self.name = name
        self._connection = connection
        self._shape = shape
        self._existing: Existing | None = None

    def prepare(self) -> None:
        """Create index and alias in one step if absent, and wait until all shards are active."""
        self.forget()
        if self.existing() is None:
            self._create()
        self.complete()
        deadline = monotonic() + COMPLETE_WITHIN_S
        while not self._is_active():
            if monotonic() > deadline:
                raise StoreUnavailable(INCOMPLETE)
            sleep(PAUSE_S)

    def existing(self, *, within_s: float | None = None) -> Existing | None:
        """Return the index, None if it is absent; after the first success without a request.

        Raises StoreError if the server is unsupported, or the name belongs to an incompatible index.
        """
        if self._existing is None:
            cluster = self._connection.cluster(within_s=within_s)
            indices = cluster.get(f"/{self.name}", ignore_unavailable="true")
            if not indices:
                return None
            if reason := why_unusable(self.name, indices, cluster.dialect):
                raise StoreError(reason)
            ((name, details),) = indices.items()
            self._existing = Existing(
                name,
                mapping.vectors(details, cluster.dialect),
                mapping.missing(details, cluster.dialect),
                mapping.missing_settings(details),
            )
        return self._existing

    def cluster(self) -> Cluster:
        """Return the cluster for requests to the index. Raises like `existing`; a request to an absent index fails."""
        self.existing()
        return self._connection.cluster()

    def complete(self) -> Cluster:
        """Add the fields and settings that the index lacks, and return the cluster for writes."""
        existing, cluster = self.existing(), self._connection.cluster()
        if existing is None or existing.is_complete:
            return cluster
        if existing.missing:
            # A document may need them.
            cluster.put(f"/{existing.name}/_mapping", {"properties": existing.missing})
        if existing.missing_settings:
            # Without them searches take longer, and nothing fails.
            with suppress(StoreError):
                cluster.put(f"/{existing.name}/_settings", existing.missing_settings)
        self._existing = replace(existing, missing={}, missing_settings={})
        return cluster

    def forget(self) -> None:
        """Check the index again before its next use: the alias may have moved to another one."""
        self._existing = None

    def answers_searches(self, *, within_s: float) -> bool:
        """Return whether every shard responds to searches."""
        return is_whole(self._connection.cluster(within_s=within_s).get(f"/{self.name}/_count"))

    def segments(self, *, within_s: float) -> list[list[int]]:
        """Return the number of documents in each segment of each shard copy, deleted ones included.

        Only segments that searches use: the server also lists new ones, and those that were merged.
        """
        fields = ("num_docs", "deleted_docs", "search")
        paths = ",".join(f"indices.*.shards.*.segments.*.{field}" for field in fields)
        response = self._connection.cluster(within_s=within_s).get(f"/{self.name}/_segments", filter_path=paths)
        return [
            [one["num_docs"] + one["deleted_docs"] for one in copy.get("segments", {}).values() if one["search"]]
            for index in response.get("indices", {}).values()
            for copies in index["shards"].values()
            for copy in copies
        ]

    def why_no_writes(self, *, within_s: float) -> str:
        """Return the reason why writes fail, in one line, or ""."""
        try:
            cluster = self._connection.cluster(within_s=within_s)
            # The master responds to this request: without a master every write fails.
            cluster.get(f"/_cluster/health/{self.name}", timeout="1s")
            settings = cluster.get(f"/{self.name}/_settings/index.blocks.*", flat_settings="true")
        except StoreError as error:
            return str(error)
        blocks = {name for one in settings.values() for name, on in one["settings"].items() if on == "true"}
        return ", ".join(sorted(blocks))

    def _is_active(self) -> bool:
        """Return whether every shard has an active primary."""
        cluster = self._connection.cluster()
        health = cluster.get(f"/_cluster/health/{self.name}", level="indices", timeout="1s")["indices"]
        # Not the status: it is yellow while the first shards are still being created.
        return bool(health) and all(one["active_primary_shards"] == one["number_of_shards"] for one in health.values())

    def _create(self) -> None:
        cluster = self._connection.cluster()
        body = {
            "aliases": {self.name: {"is_write_index": True}},
            "mappings": self._shape.mappings(cluster.dialect),
            "settings": self._shape.settings(cluster.dialect),
        }
        try:
            cluster.put(f"/{self.name}-1", body)
        except StoreError:
            # Another process may have created it first; any other cause is for the operator.
            if self.existing() is None:
                raise
