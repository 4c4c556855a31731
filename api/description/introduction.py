"""The introduction of the API's description."""

from api.access.keys import Scope
from common.config import Settings
from common.images.formats import SUPPORTED_FORMATS
from common.record_rules import FILEPATH_BYTES, METADATA_BYTES, METADATA_DEPTH, METADATA_DIGITS, METADATA_STRING_BYTES

SCOPES = ", ".join(f"`{scope}`" for scope in Scope)
TEXT = """\
Add images by upload or by URL, and find them again: resized, recompressed, cropped, with a caption, rotated, \
mirrored, inverted, in a screenshot or in a collage.

## Requests

Parameters are in the query, in a JSON object, in a urlencoded form or in a multipart form; files need the last. In \
JSON, numbers, booleans and `metadata` have their own types, and `filter` is an object. An unknown parameter is an \
error that names a similar parameter or lists all parameters of the endpoint. A boolean of a form or query is true, \
false, 1 or 0, in any case. A body has no `Content-Encoding`.

## Replies

Every reply is a JSON object with `status` (`ok`, `warn` or `fail`), `error` (a list of texts), `method` (the name of \
the endpoint) and `result` (a list). The exceptions are `/add/batch` and `/search/batch` (JSON lines), `/metrics`, \
`/images/thumbnail`, `/docs` and the web page. `warn` is a success with warnings in `error` and, for `featureless`, a \
`code`: the image has no features to compare, such as an image of one colour. A failure has a `code` and, if a \
parameter caused it, a `field`. Clients must ignore unknown keys. Every reply has an `X-Request-ID`: that of the \
request if it has 1 to 128 letters, digits and `._:-`, else a new one. Times are ISO 8601, in UTC.

## Images

An image is a file or an http or https URL, of at most {image_bytes:,} bytes and {pixels:,} pixels \
({jpeg_pixels:,} of a baseline JPEG). The formats are {formats}; an animation counts by its first frame with \
features. URLs must resolve to public addresses and use port 80 or 443, unless the service allows others.

An image is stored under its `filepath`, a name of 1 to {filepath_bytes:,} bytes of UTF-8 without control characters. \
Adding to a filepath again replaces the image, and the newest request wins, in any order of processing. \
`metadata` is a JSON object of at most {metadata_bytes:,} bytes and {depth} levels. A string in it, or the keys on the \
path to a value, have at most {string_bytes:,} bytes; an integer has at most {digits:,} digits.

## Tasks

An add is accepted at once and becomes a task. `/tasks/{{id}}` has its state; `wait` delays the reply until the task \
has ended; a `callback_url` receives its end. After a 429 or 503, retry after the seconds in `Retry-After`. An add \
that is sent again with the same `Idempotency-Key` is processed once.

## Keys

If the service has API keys, a request needs one as `Authorization: Bearer KEY`, except where an endpoint is open. A \
key has some of the scopes {scopes}; no scope includes another.\
"""


def introduction(settings: Settings) -> str:
    """Return the text with the limits of the settings."""
    return TEXT.format(
        formats=SUPPORTED_FORMATS,
        image_bytes=settings.max_image_bytes,
        pixels=settings.max_image_pixels,
        jpeg_pixels=settings.max_jpeg_pixels,
        filepath_bytes=FILEPATH_BYTES,
        metadata_bytes=METADATA_BYTES,
        string_bytes=METADATA_STRING_BYTES,
        depth=METADATA_DEPTH,
        digits=METADATA_DIGITS,
        scopes=SCOPES,
    )
