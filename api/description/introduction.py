"""What the API's description says before it comes to the endpoints."""

from api.access.keys import Scope
from api.forms.parameters import FILEPATH_BYTES, METADATA_BYTES, METADATA_DEPTH, METADATA_STRING_BYTES
from common.config import Settings
from common.images.formats import SUPPORTED_FORMATS

SCOPES = ", ".join(f"`{scope}`" for scope in Scope)
TEXT = """\
Add pictures by upload or by URL, and find their near-duplicates: resized, recompressed, cropped by up to about 5 % of \
each edge, turned, mirrored or inverted.

## Requests

Parameters come by query, by form or by multipart form, as it suits. What an endpoint does not know is refused, with \
the parameter that is like it, or with all that the endpoint takes where none is. A boolean is true, false, 1 or 0, in \
any case. A body comes as it is, without a `Content-Encoding`.

## Replies

Every reply, save those of `/add/batch` (a line of JSON for each line), `/metrics` and `/docs`, is a JSON object with \
`status` (`ok`, `warn` or `fail`), `error` (texts), `method` (the endpoint's name) and `result` (a list). `warn` is a \
success about which `error` has something to tell. A failure has a `code` and, where a parameter is to blame, a \
`field`. More keys may come to stand beside these. Every reply carries `X-Request-ID`: the request's own, where that \
is 1 to 128 letters, digits and `._:-`, else one that was made for it. Times are ISO 8601, in UTC.

## Pictures

A picture comes as a file or by an http or https URL, of at most {image_bytes:,} bytes and {pixels:,} pixels \
({jpeg_pixels:,} of a baseline JPEG). {formats} are read; of several frames, the first. URLs lead to public addresses \
alone, by the ports 80 and 443, unless the service allows others.

It is stored under its `filepath`, a name of 1 to {filepath_bytes:,} bytes of UTF-8 without control characters. Adding \
to a filepath again replaces the picture, and the newest request wins, in whatever order the work is done. Its \
`metadata` are a JSON object of at most {metadata_bytes:,} bytes, nested at most {depth} deep; a string in it has at \
most {string_bytes:,} bytes, as have all the keys together that lead to a value.

## Tasks

An add is accepted at once and becomes a task. What became of it is told by `/tasks/{{id}}`, by the add itself if it \
is to `wait`, or by a call to its `callback_url`. After a 429 or 503 the same may succeed when the seconds of its \
`Retry-After` are over; an add that is sent again with the same `Idempotency-Key` is done once.

## Keys

Where the service has keys, each request brings one as `Authorization: Bearer KEY`, save to what needs none. A key \
opens some of the scopes {scopes}; none includes another.\
"""


def introduction(settings: Settings) -> str:
    """Return the text, with the limits as they are set."""
    return TEXT.format(
        formats=SUPPORTED_FORMATS,
        image_bytes=settings.max_image_bytes,
        pixels=settings.max_image_pixels,
        jpeg_pixels=settings.max_jpeg_pixels,
        filepath_bytes=FILEPATH_BYTES,
        metadata_bytes=METADATA_BYTES,
        string_bytes=METADATA_STRING_BYTES,
        depth=METADATA_DEPTH,
        scopes=SCOPES,
    )
