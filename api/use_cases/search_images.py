"""Search and compare images: from the sources of a request to matches and scores."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from api.sources import Source, UnknownFilepath, naming, validate_url
from api.use_cases.local_features import LocalFeatureLimits
from common.byte_budget import ByteBudget, Reservation
from common.decoding.pool import Decoder
from common.decoding.protocol import Output, SignedImage
from common.images.flatness import are_featureless
from common.images.local_features.sketches import SmallCopy
from common.images.signature import Signature
from common.local_search import ImageFeatures, add_local_comparison, add_local_matches, are_any_flat
from common.modes import Mode
from common.net.fetch import Fetcher
from common.net.watchdog import MinimumRate
from common.search import (
    SURE_SCORE,
    Comparison,
    Match,
    SearchOptions,
    SignatureMatches,
    compare,
    find_by_signature,
    page,
    similarity,
)
from common.sketch_matches import decide_by_sketches
from common.store.base import Record, Store

# Local features take a decoder many times as long as signatures. All of them count as one client, which has one
# decoder at a time: the others remain for signatures.
LOCAL_FEATURES_CLIENT = "(local features)"
# A host that sends less holds a download's slot for few seconds. In `MATCH_FETCH_TIMEOUT_S` it would send 60 KB.
MINIMUM_RATE = MinimumRate(bytes_per_s=4096, grace_s=3)
COMPARED = Output.SIGNATURES | Output.STORED_FEATURES | Output.QUERY_FEATURES | Output.SMALL_COPY


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The matches of an image in a collection, best first, and the mode that was used.

    An image without features has no matches.
    """

    matches: Sequence[Match]
    mode: Mode
    is_featureless: bool
    collection: str


class QueryImage(Protocol):
    """An image that is searched for, while its bytes are in memory."""

    @property
    def signatures(self) -> Sequence[Signature]:
        """Its signatures."""

    @property
    def small_copy(self) -> SmallCopy | None:
        """Its small copy if it is of flat content; None also if its pixels are not known."""

    def features(self) -> ImageFeatures | None:
        """Return its local features, once; None if they are unknown."""


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """A stored image that is searched for."""

    record: Record

    @property
    def signatures(self) -> Sequence[Signature]:
        """Its signatures."""
        return self.record.signatures

    @property
    def small_copy(self) -> SmallCopy | None:
        """None: pixels are not stored."""
        return None

    def features(self) -> ImageFeatures | None:
        """Return its stored features; a record of an earlier version has none."""
        return ImageFeatures.of_record(self.record)


class PixelQuery:
    """An image that is searched for by its bytes, which `reservation` counts."""

    def __init__(self, decoder: Decoder, data: bytes, reservation: Reservation, *, client: str) -> None:
        self._decoder = decoder
        self._data = data
        self._reservation = reservation
        image = decoder.decode(data, outputs=Output.SIGNATURES | Output.SMALL_COPY_IF_FLAT, client=client)
        self.signatures: Sequence[Signature] = image.signatures
        self.small_copy = image.small_copy

    def features(self) -> ImageFeatures | None:
        """Extract its features, and release its memory."""
        outputs = Output.QUERY_FEATURES | Output.SMALL_COPY
        image = self._decoder.decode(self._data, outputs=outputs, client=LOCAL_FEATURES_CLIENT)
        self._data = b""
        self._reservation.resize(0)
        return ImageFeatures.of_image(image)


@dataclass(frozen=True, slots=True)
class Compared:
    """One of two images that are compared; without local features if they are unknown or not an output."""

    image: SignedImage
    features: ImageFeatures | None


@dataclass(frozen=True, slots=True)
class SearchImages:
    """Searches and comparisons. `client` is the API key or the address of a request.

    Downloads have slots of their own: a host that sends slowly holds no slot of searches and no decoder. Both kinds of
    slots raise Overloaded for a client without one.

    Every method raises ImageError, FetchError, InputError or UnknownFilepath, whose `field` is the parameter that named
    the image.
    """

    fetcher: Fetcher
    decoder: Decoder
    store: Store
    budget: ByteBudget
    local_features: LocalFeatureLimits
    search_slot: Callable[[str], AbstractContextManager[None]]
    download_slot: Callable[[str], AbstractContextManager[None]]

    def record(self, filepath: str, *, collection: str, field: str) -> Record:
        """Return the record that is stored under the filepath."""
        records = self.store.records([filepath], collection=collection)
        if filepath not in records:
            raise UnknownFilepath(field)
        return records[filepath]

    def search(self, source: Source, options: SearchOptions, *, client: str, mode: Mode) -> SearchResult:
        """Search with an image."""
        with self._query(source, client) as query:
            collection = options.selection.collection
            mode = self.local_features.allowed(mode, collection)
            if are_featureless(query.signatures):
                return SearchResult([], mode, is_featureless=True, collection=collection)
            similar = find_by_signature(query.signatures, self.store, options, own_filepath=source.filepath)
            similar = decide_by_sketches(similar, query.small_copy, self.store, options)
            matches, mode = self.add_local(similar, query, options, client=client, mode=mode)
            part = page(matches, self.store, options)
            return SearchResult(part, mode, is_featureless=False, collection=collection)

    def add_local(
        self, similar: SignatureMatches, query: QueryImage, options: SearchOptions, *, client: str, mode: Mode
    ) -> tuple[Sequence[Match], Mode]:
        """Return the matches of both stages without metadata, and the mode that was used."""
        if mode == "fast" or (mode == "auto" and similar.is_sure):
            return similar.matches, mode
        with self.local_features.slot(client):
            features = query.features()
            if features is None:
                return similar.matches, "fast"
            is_flat = are_any_flat(query.signatures)
            return add_local_matches(similar.matches, features, self.store, options, is_query_flat=is_flat), mode

    def compare(self, first: Source, second: Source, *, client: str, mode: Mode) -> tuple[Comparison, Mode]:
        """Compare two images, and return the mode as well.

        The pixels of a stored image are not known: a featureless stored image matches only itself.
        """
        mode = self.local_features.allowed(mode, first.collection)
        if mode == "fast":
            return self._similarity(first, second, *self._compared(first, second, Output.SIGNATURES, client)), mode
        one, other = self._compared(first, second, COMPARED, client)
        with self.search_slot(client):
            comparison = self._similarity(first, second, one, other)
            flat = [are_any_flat(each.image.signatures) for each in (one, other)]
            is_sure = mode == "auto" and comparison.score >= SURE_SCORE and not any(flat)
            if one.features is None or other.features is None:
                return comparison, mode if is_sure else "fast"
            if is_sure and not (one.features.has_sketch or other.features.has_sketch):
                return comparison, mode
            return add_local_comparison(comparison, one.features, other.features, is_flat=all(flat)), mode

    def thumbnail(self, source: Source, *, client: str) -> SignedImage:
        """Return the size and the thumbnail of an image that is not stored."""
        with self._opened(source, client) as (data, _):
            return self.decoder.decode(data, outputs=Output.THUMBNAIL, client=client)

    def _similarity(self, first: Source, second: Source, one: Compared, other: Compared) -> Comparison:
        """Compare two images by signatures."""
        if first.filepath is None and second.filepath is None:
            return compare(one.image, other.image)
        comparison = similarity(one.image.signatures, other.image.signatures)
        return replace(comparison, score=100.0) if first.filepath == second.filepath else comparison

    def _compared(self, first: Source, second: Source, outputs: Output, client: str) -> tuple[Compared, Compared]:
        """Return both images with these outputs."""
        return self._read(first, outputs, client), self._read(second, outputs, client)

    def _read(self, source: Source, outputs: Output, client: str) -> Compared:
        if source.filepath is not None:
            with self.search_slot(client):
                record = self.record(source.filepath, collection=source.collection, field=source.field)
            image = SignedImage(signatures=record.signatures, width=record.width, height=record.height)
            return Compared(image, ImageFeatures.of_record(record))
        with self._opened(source, client) as (data, _):
            if outputs == Output.SIGNATURES:
                return Compared(self.decoder.decode(data, outputs=outputs, client=client), None)
            with self.local_features.slot(client):
                image = self.decoder.decode(data, outputs=outputs, client=LOCAL_FEATURES_CLIENT)
        return Compared(image, ImageFeatures.of_image(image) if image.query_features else None)

    @contextmanager
    def _query(self, source: Source, client: str) -> Iterator[QueryImage]:
        """Open the image that is searched for, within a slot of searches; its bytes are in memory only meanwhile."""
        if source.filepath is not None:
            with self.search_slot(client):
                yield StoredQuery(self.record(source.filepath, collection=source.collection, field=source.field))
            return
        with self._opened(source, client) as (data, reservation):
            yield PixelQuery(self.decoder, data, reservation, client=client)

    @contextmanager
    def _opened(self, source: Source, client: str) -> Iterator[tuple[bytes, Reservation]]:
        """Provide the image's bytes and the reservation of their memory inside the `with`, within a slot of searches.

        The slot begins after a download, and before an upload is read. An error of the image names its parameter.
        """
        if source.url is not None:
            validate_url(self.fetcher, source.url, parameter=source.field)
            with naming(source.field), self.budget.reservation(client) as reservation:
                data = self._download(source.url, reservation, client)
                with self.search_slot(client):
                    yield data, reservation
            return
        with naming(source.field), self.search_slot(client), self.budget.reservation() as reservation:
            yield _upload(source, reservation), reservation

    def _download(self, url: str, reservation: Reservation, client: str) -> bytes:
        with self.download_slot(client):
            return self.fetcher.fetch(url, reserve=reservation.resize, minimum_rate=MINIMUM_RATE)


def _upload(source: Source, reservation: Reservation) -> bytes:
    if source.file is None:
        return b""
    reservation.resize(source.file.size)
    return source.file.read()
