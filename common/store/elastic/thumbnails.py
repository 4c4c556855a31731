"""Thumbnails in an index of their own, whose documents are read by id and never searched for their content."""

import base64
import json
from collections.abc import Iterable, Sequence

from common.errors import StoreError, StoreUnavailable
from common.store.base import Verdict
from common.store.elastic.bulk import bulk, written
from common.store.elastic.cluster import Cluster
from common.store.elastic.connection import Connection
from common.store.elastic.dialects import Json
from common.store.elastic.mapping import Shape
from common.store.elastic.responses import hits, reason
from common.store.thumbnails import Owner, Thumbnail

_STORED: Json = {"index": False, "doc_values": False}
_MAPPING: Json = {
    "dynamic": "strict",
    "properties": {
        "seq": {"type": "long"},
        "collection": {"type": "keyword", **_STORED},
        "path": {"type": "keyword", **_STORED},
        "webp": {"type": "binary"},
    },
}


class ElasticThumbnails:
    """Thumbnails behind an alias of their own, which the first call creates; `connection` is that of no other object.

    `index` is the alias of the images.
    """

    def __init__(self, connection: Connection, *, index: str, shape: Shape) -> None:
        self._connection = connection
        self._index = f"{index}-thumbnails"
        self._settings = shape.layout
        self._exists = False

    def put(self, thumbnails: Sequence[Thumbnail]) -> None:
        """Keep the thumbnails; see Thumbnails."""
        self._write(f"{_action('index', each.owner.seq)}\n{json.dumps(_document(each))}\n" for each in thumbnails)

    def get(self, seq: int) -> bytes | None:
        """Return the WebP of a record; see Thumbnails."""
        (document,) = self._cluster().documents(self._index, [str(seq)])
        return base64.b64decode(document["_source"]["webp"]) if document["found"] else None

    def owners_after(self, seq: int, *, limit: int) -> list[Owner]:
        """Return the owners with a higher `seq`; see Thumbnails."""
        query = {
            "query": {"range": {"seq": {"gt": seq}}},
            "sort": ["seq"],
            "size": limit,
            "_source": ["seq", "collection", "path"],
        }
        sources = [hit["_source"] for hit in hits(self._cluster().post(f"/{self._index}/_search", query))]
        return [Owner(seq=one["seq"], collection=one["collection"], filepath=one["path"]) for one in sources]

    def delete(self, seqs: Sequence[int]) -> None:
        """Delete the thumbnails of these records; see Thumbnails."""
        self._write(f"{_action('delete', seq)}\n" for seq in seqs)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _write(self, lines: Iterable[str]) -> None:
        for result in bulk(self._cluster(), self._index, lines):
            # A deletion of an absent document is a 404.
            if "error" in result and written(result).verdict is not Verdict.STORED:
                raise StoreUnavailable(reason(result["error"]))

    def _cluster(self) -> Cluster:
        """Return the cluster, after the index exists."""
        cluster = self._connection.cluster()
        if not self._exists:
            self._create(cluster)
            self._exists = True
        return cluster

    def _create(self, cluster: Cluster) -> None:
        if cluster.get(f"/{self._index}", ignore_unavailable="true"):
            return
        body = {"aliases": {self._index: {"is_write_index": True}}, "mappings": _MAPPING, "settings": self._settings}
        try:
            cluster.put(f"/{self._index}-1", body)
        except StoreError:
            # Another process may have created it first; any other cause is for the operator.
            if not cluster.get(f"/{self._index}", ignore_unavailable="true"):
                raise


def _action(name: str, seq: int) -> str:
    return f'{{"{name}":{{"_id":"{seq}"}}}}'


def _document(thumbnail: Thumbnail) -> Json:
    owner = thumbnail.owner
    webp = base64.b64encode(thumbnail.webp).decode()
    return {"seq": owner.seq, "collection": owner.collection, "path": owner.filepath, "webp": webp}
