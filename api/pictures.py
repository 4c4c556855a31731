"""From a picture in a request to its signature, within the process's one compute slot."""

from dataclasses import dataclass

from api.forms.sources import Source, UnknownFilepath, naming
from common.errors import FetchError, InputError
from common.images.compute import ComputeSlot
from common.images.decode import Limits, decode
from common.images.signature import Signature, sign
from common.net.fetch import Fetcher
from common.search import compare, similarity
from common.store.base import Record, Store


@dataclass(frozen=True, slots=True)
class Pictures:
    """Reads pictures for searches and comparisons.

    Every method raises ImageError, FetchError, InputError or UnknownFilepath naming the parameter that the picture
    came by.
    """

    fetcher: Fetcher
    slot: ComputeSlot
    limits: Limits
    store: Store

    def record(self, filepath: str, *, field: str) -> Record:
        """Return what is stored under the filepath."""
        records = self.store.records([filepath])
        if filepath not in records:
            raise UnknownFilepath(field)
        return records[filepath]

    def signature(self, source: Source) -> Signature:
        """Return the signature of one picture."""
        if source.filepath is not None:
            return self.record(source.filepath, field=source.field).signatures[0]
        data = self._bytes(source)
        with naming(source.field), self.slot.hold(), self.slot.alarm():
            return sign(decode(data, self.limits).pixels)

    def compare(self, first: Source, second: Source) -> float:
        """Return the score of two pictures, 0 to 100.

        Of a stored picture no pixels are known: where it is featureless it is like itself alone.
        """
        if first.filepath is not None or second.filepath is not None:
            ours, theirs = self.signature(first), self.signature(second)
            return 100.0 if first.filepath == second.filepath else similarity(ours, theirs)
        first_data, second_data = self._bytes(first), self._bytes(second)
        with self.slot.hold(), self.slot.alarm():
            with naming(first.field):
                picture = decode(first_data, self.limits)
            with naming(second.field):
                other = decode(second_data, self.limits)
            return compare(picture, other)

    def _bytes(self, source: Source) -> bytes:
        if source.url is None:
            return source.data or b""
        vet(self.fetcher, source)
        with naming(source.field):
            return self.fetcher.fetch(source.url)


def vet(fetcher: Fetcher, source: Source) -> str:
    """Return the host of the picture's URL, empty where it has none.

    Raises InputError for a URL that no download could make good.
    """
    if source.url is None:
        return ""
    try:
        return fetcher.validate(source.url).host
    except FetchError as error:
        raise InputError(f"{source.field}: {error}", field=source.field, code=error.code) from error
