"""The image that a request names: by upload, by URL, or by the filepath of a stored image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api.errors import ERRORS
from common.collection_names import DEFAULT_COLLECTION
from common.errors import FetchError, ImageError, InputError, MatchError
from common.net.addresses import Target
from common.net.fetch import Fetcher
from common.spooled import Spooled


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An image by `url`, `file` or `filepath`, exactly one of them; `field` is the parameter that named it.

    `collection` is that of the request, in which a stored image is.
    """

    field: str
    url: str | None = None
    file: Spooled | None = None
    filepath: str | None = None
    collection: str = DEFAULT_COLLECTION


class UnknownFilepath(MatchError):
    """No image is stored under this filepath."""

    code = "unknown_filepath"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field}: {ERRORS[self.code].text}")
        self.field = field


@contextmanager
def naming(parameter: str) -> Iterator[None]:
    """Set the `field` of an image's or a download's error to the parameter that named the image."""
    try:
        yield
    except (ImageError, FetchError) as error:
        error.field = parameter
        raise


def validate_url(fetcher: Fetcher, url: str, *, parameter: str) -> Target:
    """Return the parsed URL; raises InputError for a URL that is never fetched, naming `parameter`."""
    try:
        return fetcher.validate(url)
    except FetchError as error:
        raise InputError(f"{parameter}: {error}", field=parameter, code=error.code) from error
