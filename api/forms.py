"""Form, multipart and query to typed values, or an error that names the field."""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser

from common.errors import FetchError, ImageError, InputError

FILEPATH_BYTES = 2048
METADATA_BYTES = 65_536
# Of a string, and of all the keys on the way to a value together: Elasticsearch has room for one such term.
METADATA_STRING_BYTES = 8192
# Elasticsearch's own limit on nested objects in a flattened field.
METADATA_DEPTH = 20
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
# Whatever U+FFFD stands for is lost: the name was not UTF-8.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where a picture comes from: `url` or `data`, exactly one of them; `field` is the parameter that named it."""

    field: str
    url: str | None = None
    data: bytes | None = None


class TooLarge(InputError):
    """A picture has more bytes than are read."""

    code = "too_large"


class UnsupportedBody(InputError):
    """The request's body is no form."""

    code = "unsupported_media_type"


class StrictRequest(Request):
    """A request whose body is read as the form that it says it is, or not at all."""

    def make_form_data_parser(self) -> FormDataParser:
        """Return a parser that tells what is wrong, where the framework's own would hand out what it has."""
        parser = super().make_form_data_parser()
        parser.silent = False
        return parser


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Let an error that a picture brought about name the parameter that the picture came by."""
    try:
        yield
    except (ImageError, FetchError) as error:
        error.field = field
        raise


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """The parameters of one request. Every method raises InputError naming the field."""

    values: Mapping[str, str]
    files: Mapping[str, FileStorage]
    max_image_bytes: int

    @classmethod
    def read(cls, request: Request, *known: str, max_image_bytes: int = 0) -> "Form":
        """Read the parameters that the endpoint knows; any other, or one given twice, is an error."""
        _check_type(request)
        _read_body(request)
        texts = [*request.args.items(multi=True), *request.form.items(multi=True)]
        files = [(name, file) for name, file in request.files.items(multi=True) if file.filename or _holds_bytes(file)]
        names = [name for name, _ in (*texts, *files)]
        for name in names:
            if name is None:
                raise InputError("a part of the form has no name", field="body")
            if name not in known:
                _unknown(name, known)
            if names.count(name) > 1:
                raise InputError(f"{name} is given more than once", field=name, code="repeated_parameter")
        return cls(dict(texts), dict(files), max_image_bytes)

    def filepath(self, name: str = "filepath") -> str:
        """Return 1 to 2,048 bytes of UTF-8 without control characters."""
        if name in self.files:
            _wrong(name, "must be text, not a file")
        if name not in self.values:
            _missing(name, f"{name} is required")
        return valid_filepath(self.values[name], name)

    def metadata(self, name: str = "metadata") -> dict[str, Any] | None:
        """Return the JSON object, or None when there is none."""
        if name in self.files:
            _wrong(name, "must be text, not a file")
        return valid_metadata(self.values[name], name) if name in self.values else None

    def source(self, number: str = "") -> Source:
        """Return the picture from `url` or `image`, with `number` behind the names: exactly one must be there."""
        url, image = f"url{number}", f"image{number}"
        if url in self.files:
            _wrong(url, "must be text, not a file")
        if image in self.values:
            _wrong(image, "must be a file part of a multipart form")
        if (url in self.values) == (image in self.files):
            if url in self.values:
                _wrong(url, f"and {image} are both given: one of them is enough")
            _missing(image, f"{image} or {url} is required")
        if url in self.values:
            return Source(url, url=self.values[url].strip() or _wrong(url, "is empty"))
        return Source(image, data=self._image(image))

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return true/false/1/0 in any case."""
        text = self.values.get(name)
        if text is None:
            return default
        return BOOLEANS[text.lower()] if text.lower() in BOOLEANS else _wrong(name, "must be true, false, 1 or 0")

    def whole(self, name: str, *, default: int, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        text = self.values.get(name)
        if text is None:
            return default
        # Twenty digits are beyond any bound; int() of thousands would be an error of its own.
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and low <= int(text) <= high):  # noqa: PLR2004 - said above
            _wrong(name, f"must be a whole number from {low} to {high}")
        return int(text)

    def number(self, name: str, *, low: float, high: float) -> float | None:
        """Return a number from `low` to `high`, None when it is not given."""
        text = self.values.get(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        return value if low <= value <= high else _wrong(name, f"must be a number from {low:g} to {high:g}")

    def _image(self, name: str) -> bytes:
        data = self.files[name].stream.read(self.max_image_bytes + 1)
        if not data:
            raise InputError(f"{name} is an empty file", field=name, code="empty_image")
        if len(data) > self.max_image_bytes:
            raise TooLarge(f"{name} is larger than {self.max_image_bytes} bytes", field=name)
        return data


def valid_filepath(text: str, field: str) -> str:
    """Return `text` if it can name a stored picture."""
    if not text:
        _wrong(field, "is empty")
    if REPLACEMENT in text:
        _wrong(field, "is not valid UTF-8")
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > FILEPATH_BYTES:
        _wrong(field, f"has {size} bytes, more than {FILEPATH_BYTES}")
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        _wrong(field, "holds a control character")
    return text


def valid_metadata(text: str, field: str) -> dict[str, Any]:
    """Return the JSON object in `text` if it keeps to the limits on size, strings and depth."""
    if len(text.encode("utf-8", "surrogatepass")) > METADATA_BYTES:
        _wrong(field, f"is larger than {METADATA_BYTES} bytes")
    try:
        value = json.loads(text, parse_constant=lambda word: _wrong(field, f"holds {word}, which is no JSON number"))
    except (ValueError, RecursionError):
        _wrong(field, "is not valid JSON")
    if not isinstance(value, dict):
        _wrong(field, "must be a JSON object")
    _check_metadata(value, field, ())
    return value


def _check_metadata(value: object, field: str, way: tuple[str, ...]) -> None:
    """Check a value and all that it holds; `way` are the keys that lead to it, an array counting as an empty one."""
    if len(way) > METADATA_DEPTH:
        _wrong(field, f"is nested deeper than {METADATA_DEPTH}")
    if isinstance(value, str):
        _check_string(value, field)
    elif isinstance(value, float) and value in {float("inf"), float("-inf")}:
        _wrong(field, "holds a number that is too large")
    elif isinstance(value, dict):
        for key, held in value.items():
            if "\0" in key:
                _wrong(field, "holds a key with a NUL character")
            _check_string("".join((*way, key)), field)
            _check_metadata(held, field, (*way, key))
    elif isinstance(value, list):
        for held in value:
            _check_metadata(held, field, (*way, ""))


def _check_string(text: str, field: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        _wrong(field, "holds half of a surrogate pair")
    if size > METADATA_STRING_BYTES:
        _wrong(field, f"holds a string or keys of more than {METADATA_STRING_BYTES} bytes")


def _check_type(request: Request) -> None:
    """Refuse a body that is no form: its parameters would pass for missing ones."""
    has_body = request.content_length or "Transfer-Encoding" in request.headers
    if has_body and request.mimetype not in FORM_TYPES:
        raise UnsupportedBody(f"the body must be a form ({' or '.join(FORM_TYPES)})", field="Content-Type")


def _read_body(request: Request) -> None:
    try:
        request.form  # noqa: B018 - reading it is what reads the body
    except HTTPException:
        raise
    except Exception as error:
        # No boundary, parts or chunks that are none, a client that went away: each server and framework has errors of
        # its own for these, and all say the same of the body.
        raise InputError("the body is not the form that its Content-Type says", field="body") from error


def _holds_bytes(file: FileStorage) -> bool:
    """Say whether a part without a file name is more than a browser's empty file field."""
    held = bool(file.stream.read(1))
    file.stream.seek(0)
    return held


def _unknown(name: str, known: tuple[str, ...]) -> NoReturn:
    near = get_close_matches(name.lower(), known, n=1, cutoff=0) if known else []
    hint = f"; did you mean {near[0]}?" if near else "; this endpoint takes none"
    raise InputError(
        f"{name[:80]} is not a parameter of this endpoint{hint}", field=name[:80], code="unknown_parameter"
    )


def _missing(field: str, message: str) -> NoReturn:
    raise InputError(message, field=field, code="missing_parameter")


def _wrong(field: str, what: str) -> NoReturn:
    raise InputError(f"{field} {what}", field=field)
