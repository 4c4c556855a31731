"""Search and compare images: from the sources of a request to matches and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from api.sources import Source, UnknownFilepath, naming, validate_url
from common.images.compute import ComputeSlot
from common.images.decode import Limits, decode
from common.images.signature import Signature, is_featureless, sign
from common.net.fetch import Fetcher
from common.search import Comparison, Match, compare, search, similarity
from common.store.base import Record, Store


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The matches of an image, best first; an image without features has none."""

    matches: Sequence[Match]
    is_featureless: bool


@dataclass(frozen=True, slots=True)
class SearchImages:
    """Searches and comparisons; one image at a time is decoded in a process.

    Every method raises ImageError, FetchError, InputError or UnknownFilepath, whose `field` is the parameter that named
    the image.
    """

    fetcher: Fetcher
    slot: ComputeSlot
    limits: Limits
    store: Store

    def record(self, filepath: str, *, field: str) -> Record:
        """Return the record that is stored under the filepath."""
        records = self.store.records([filepath])
        if filepath not in records:
            raise UnknownFilepath(field)
        return records[filepath]

    def search(  # noqa: PLR0913 - the options are keywords
        self,
        source: Source,
        *,
        all_orientations: bool,
        limit: int,
        offset: int,
        min_score: float | None,
        where: Mapping[str, str],
    ) -> SearchResult:
        """Search with an image; the options are those of `common.search.search`."""
        signature = self.signature(source)
        matches = search(
            signature,
            self.store,
            all_orientations=all_orientations,
            limit=limit,
            offset=offset,
            min_score=min_score,
            where=where,
        )
        return SearchResult(matches, is_featureless(signature))

    def signature(self, source: Source) -> Signature:
        """Return the signature of one image."""
        if source.filepath is not None:
            return self.record(source.filepath, field=source.field).signatures[0]
        data = self._bytes(source)
        with naming(source.field), self.slot.hold(), self.slot.alarm():
            return sign(decode(data, self.limits).pixels)

    def compare(self, first: Source, second: Source) -> Comparison:
        """Compare two images.

        The pixels of a stored image are not known: a featureless stored image matches only itself.
        """
        if first.filepath is not None or second.filepath is not None:
            comparison = similarity(self.signature(first), self.signature(second))
            return replace(comparison, score=100.0) if first.filepath == second.filepath else comparison
        first_data, second_data = self._bytes(first), self._bytes(second)
        with self.slot.hold(), self.slot.alarm():
            with naming(first.field):
                first_image = decode(first_data, self.limits)
            with naming(second.field):
                second_image = decode(second_data, self.limits)
            return compare(first_image, second_image)

    def _bytes(self, source: Source) -> bytes:
        if source.url is None:
            return source.data or b""
        validate_url(self.fetcher, source.url, parameter=source.field)
        with naming(source.field):
            return self.fetcher.fetch(source.url)
