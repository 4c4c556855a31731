"""Search and compare images: from the sources of a request to matches and scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from api.sources import Source, UnknownFilepath, naming, validate_url
from common.byte_budget import ByteBudget, Reservation
from common.decoding.pool import Decoder
from common.decoding.protocol import SignedImage
from common.images.signature import Signature, are_featureless
from common.net.fetch import Fetcher
from common.search import Comparison, Match, compare, search, similarity
from common.store.base import Record, Selection, Store


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The matches of an image, best first; an image without features has none."""

    matches: Sequence[Match]
    is_featureless: bool


@dataclass(frozen=True, slots=True)
class SearchImages:
    """Searches and comparisons. `client` is the API key or the address of a request.

    Every method raises ImageError, FetchError, InputError or UnknownFilepath, whose `field` is the parameter that named
    the image.
    """

    fetcher: Fetcher
    decoder: Decoder
    store: Store
    budget: ByteBudget

    def record(self, filepath: str, *, collection: str, field: str) -> Record:
        """Return the record that is stored under the filepath."""
        records = self.store.records([filepath], collection=collection)
        if filepath not in records:
            raise UnknownFilepath(field)
        return records[filepath]

    def search(  # noqa: PLR0913 - the options are keywords
        self,
        source: Source,
        *,
        client: str,
        all_orientations: bool,
        limit: int,
        offset: int,
        min_score: float | None,
        selection: Selection,
    ) -> SearchResult:
        """Search with an image; the options are those of `common.search.search`."""
        signatures = self.signatures(source, client=client)
        matches = search(
            signatures,
            self.store,
            all_orientations=all_orientations,
            limit=limit,
            offset=offset,
            min_score=min_score,
            selection=selection,
        )
        return SearchResult(matches, are_featureless(signatures))

    def signatures(self, source: Source, *, client: str) -> Sequence[Signature]:
        """Return all signatures of one image."""
        if source.filepath is not None:
            return self.record(source.filepath, collection=source.collection, field=source.field).signatures
        return self._decode(source, client).signatures

    def compare(self, first: Source, second: Source, *, client: str) -> Comparison:
        """Compare two images.

        The pixels of a stored image are not known: a featureless stored image matches only itself.
        """
        if first.filepath is not None or second.filepath is not None:
            comparison = similarity(self.signatures(first, client=client), self.signatures(second, client=client))
            return replace(comparison, score=100.0) if _is_same(first, second) else comparison
        return compare(self._decode(first, client), self._decode(second, client))

    def _decode(self, source: Source, client: str) -> SignedImage:
        """Decode one image; its bytes are in memory only meanwhile."""
        if source.url is not None:
            validate_url(self.fetcher, source.url, parameter=source.field)
        with naming(source.field), self.budget.reservation() as reservation:
            return self.decoder.decode(self._bytes(source, reservation), client=client)

    def _bytes(self, source: Source, reservation: Reservation) -> bytes:
        if source.url is not None:
            return self.fetcher.fetch(source.url, reserve=reservation.resize)
        if source.file is None:
            return b""
        reservation.resize(source.file.size)
        return source.file.read()


def _is_same(first: Source, second: Source) -> bool:
    """Return whether both are the same stored image."""
    return (first.collection, first.filepath) == (second.collection, second.filepath)
