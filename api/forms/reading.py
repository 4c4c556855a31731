"""Parsing: from an HTTP request to the parameters of its endpoint, or an error that names the parameter."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Any, NoReturn, TypeVar

from flask import Request
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser, default_stream_factory

from api.forms.json_body import JSON_BYTES, JSON_TYPE, SHOWN, decode, form_fields, json_names
from api.forms.parameters import Parameters, nearest
from common.config import Settings
from common.errors import InputError

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
# The first is documented and used in replies.
LINE_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
# The maximum number of parts of a form, not counting those with an index.
FORM_PARTS = 64
CHUNK_BYTES = 64 * 1024

P = TypeVar("P", bound=Parameters)
Value = str | FileStorage


class UnsupportedBody(InputError):
    """The media type or the coding of the body is not supported."""

    code = "unsupported_media_type"


class BoundedParser(FormDataParser):
    """A parser that limits urlencoded forms like multipart ones; the framework's own has no limit for them."""

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - the framework's own
        """Parse the form; raises RequestEntityTooLarge for too many bytes or fields."""
        if mimetype == FORM_TYPES[1]:
            stream = BytesIO(self._read(stream))
        return super().parse(stream, mimetype, content_length, options)

    def _read(self, stream: IO[bytes]) -> bytes:
        data = _read_at_most(self.max_form_memory_size or 0, stream)
        if data.count(b"&") >= (self.max_form_parts or 0):
            raise RequestEntityTooLarge
        return data


class StrictRequest(Request):
    """A request whose body is a valid form of its Content-Type, or an error."""

    form_data_parser_class = BoundedParser

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on unchanged
        super().__init__(*args, **kwargs)
        self._opened: list[IO[bytes]] = []

    def make_form_data_parser(self) -> FormDataParser:
        """Return a parser that raises an error for a malformed form; the default one returns what it could parse."""
        parser = super().make_form_data_parser()
        parser.silent = False
        parser.stream_factory = self._open_file
        return parser

    def close(self) -> None:
        """Close the files of all parts, also those of an incomplete form."""
        super().close()
        for file in self._opened:
            file.close()

    def _open_file(self, *args: Any, **kwargs: Any) -> IO[bytes]:  # noqa: ANN401 - passed on unchanged
        self._opened.append(default_stream_factory(*args, **kwargs))
        return self._opened[-1]


def read_query(request: Request, types: Sequence[type[P]], settings: Settings) -> P:
    """Return the parameters beside a body of JSON lines; raises UnsupportedBody for any other body."""
    if request.mimetype not in LINE_TYPES:
        raise UnsupportedBody(f"Content-Type must be {LINE_TYPES[0]}", field="Content-Type")
    _check_coding(request)
    return _fit(request, types, _by_name([*request.args.items(multi=True)], types), settings)


def read(request: Request, types: Sequence[type[P]], settings: Settings) -> P:
    """Return the parameters in query, body, headers and path as the first of the types that has all their names.

    Raises InputError for an unknown, repeated or invalid parameter.
    """
    _check_type(request)
    fields = _json_fields(request, types) if _has_json(request) else _form_fields(request)
    return _fit(request, types, _by_name([*request.args.items(multi=True), *fields], types), settings)


def read_line(kind: type[P], line: bytes, settings: Settings, **defaults: str) -> P:
    """Return the parameters in a line of JSON, whose values have the types of a JSON body.

    Raises InputError for an unknown, repeated or invalid parameter.
    """
    values, known = decode(line, field="line"), json_names([kind])
    for name in values:
        if name not in known:
            _unknown(name, known)
    return parse(
        kind, {**defaults, **nested(kind, {name: [value] for name, value in form_fields(values, [kind])})}, settings
    )


def _fit(request: Request, types: Sequence[type[P]], params: Mapping[str, list[Value]], settings: Settings) -> P:
    fitting = next((kind for kind in types if all(knows(kind, name) for name in params)), None)
    if fitting is None:
        _mixed(params, types)
    headers = {field: request.headers[name] for field, name in fitting.headers.items() if name in request.headers}
    return parse(fitting, {**nested(fitting, params), **headers, **(request.view_args or {})}, settings)


def parse(
    kind: type[P], values: Mapping[str, Any], settings: Settings, *, shown: Callable[[str], str] = lambda name: name
) -> P:
    """Return the values as `kind`; raises InputError for the first invalid one.

    `shown` maps the name of a field to the client's name of it.
    """
    try:
        return kind.model_validate(values, context=settings)
    except ValidationError as error:
        raise input_error(error, shown) from None


def input_error(error: ValidationError, shown: Callable[[str], str]) -> InputError:
    """Return the first of the validation errors as our error."""
    first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    field = shown(context.get("field") or _field(first["loc"]))
    if first["type"] == "missing":
        return InputError(f"{field} is required", field=field, code="missing_parameter")
    *others, last = [shown(name) for name in context.get("names", ())] or [field]
    about = f"{', '.join(others)} {context['word']} {last}" if others else last
    message = f"{about} {context.get('problem', 'is invalid')}"
    return InputError(message, field=field, code=first["type"] if "field" in context else None)


def _field(location: tuple[str | int, ...]) -> str:
    name, *key = location
    return f"{name}[{key[0]}]"[:SHOWN] if key else str(name)


def knows(kind: type[Parameters], name: str) -> bool:
    """Return whether the type has a parameter of this name."""
    return name in kind.plain or name in kind.keyed or (name.endswith("]") and name.partition("[")[0] in kind.keyed)


def nested(kind: type[Parameters], params: Mapping[str, list[Value]]) -> dict[str, Any]:
    """Return the values by field; parameters `name[key]` become a dictionary by key.

    Without a key, as generated clients send it, an indexed parameter has its values in order, and any other is one JSON
    object. Raises InputError for a name that occurs more than once.
    """
    values: dict[str, Any] = {}
    for name, received in params.items():
        if name in kind.indexed:
            values[name] = {f"{index}": value for index, value in enumerate(received)}
        elif len(received) > 1:
            raise _repeated(name)
        elif name in kind.plain or name in kind.keyed:
            values[name] = received[0]
    for name, received in params.items():
        field, bracket, key = name.removesuffix("]").partition("[")
        if bracket and field in params:
            raise InputError(f"{name[:SHOWN]} cannot be combined with {field}", field=name[:SHOWN])
        if bracket:
            values.setdefault(field, {})[key] = received[0]
    return values


def _by_name(items: Sequence[tuple[str | None, Value]], types: Sequence[type[Parameters]]) -> dict[str, list[Value]]:
    """Return the values of the parameters by name; raises InputError for an unknown or repeated one."""
    arrays = {name for name, _ in items if name and any(name in kind.indexed for kind in types)}
    if sum(name is None or not ("[" in name or name in arrays) for name, _ in items) > FORM_PARTS:
        raise RequestEntityTooLarge
    params: dict[str, list[Value]] = {}
    for name, value in items:
        if name is None:
            raise InputError("a part of the form has no name", field="body")
        check_names([name], types)
        if name in params and name not in arrays:
            raise _repeated(name)
        params.setdefault(name, []).append(value)
    return params


def _repeated(name: str) -> InputError:
    shown = name[:SHOWN]
    return InputError(f"{shown} occurs more than once", field=shown, code="repeated_parameter")


def check_names(names: Iterable[str], types: Sequence[type[Parameters]]) -> None:
    """Raise InputError for a name that no type has; it suggests a similar name, or else lists all names."""
    for name in names:
        if not any(knows(kind, name) for kind in types):
            _unknown(name, {known for kind in types for known in (*kind.plain, *kind.keyed.values())})


def _check_type(request: Request) -> None:
    """Raise UnsupportedBody for a body of another media type: its parameters would seem to be missing."""
    if _has_body(request) and request.mimetype not in (JSON_TYPE, *FORM_TYPES):
        raise UnsupportedBody(f"Content-Type must be {JSON_TYPE}, {' or '.join(FORM_TYPES)}", field="Content-Type")
    if _has_body(request):
        _check_coding(request)


def _has_body(request: Request) -> bool:
    return bool(request.content_length or "Transfer-Encoding" in request.headers)


def _has_json(request: Request) -> bool:
    return _has_body(request) and request.mimetype == JSON_TYPE


def _check_coding(request: Request) -> None:
    """Raise UnsupportedBody for a compressed body: it would seem to be malformed."""
    if (request.content_encoding or "identity").lower() != "identity":
        raise UnsupportedBody("Content-Encoding is not supported: send the body uncompressed", field="Content-Encoding")


def _json_fields(request: Request, types: Sequence[type[Parameters]]) -> list[tuple[str, str]]:
    max_bytes = min(JSON_BYTES, request.max_form_memory_size or 0)
    with _readable():
        body = _read_at_most(max_bytes, request.stream)
    values, known = decode(body), json_names(types)
    for name in values:
        if name not in known:
            _unknown(name, known)
    return list(form_fields(values, types))


def _form_fields(request: Request) -> list[tuple[str | None, Value]]:
    with _readable():
        texts = request.form.items(multi=True)
    files = [(name, file) for name, file in request.files.items(multi=True) if file.filename or _holds_bytes(file)]
    return [*texts, *files]


@contextmanager
def _readable() -> Iterator[None]:
    """Raise InputError for a body that cannot be read."""
    try:
        yield
    except HTTPException:
        raise
    except Exception as error:
        # No boundary, malformed parts or chunks, a disconnected client: servers and frameworks raise different errors.
        raise InputError("the body is not a valid form of its Content-Type", field="body") from error


def _read_at_most(max_bytes: int, stream: IO[bytes]) -> bytes:
    data = bytearray()
    # In chunks: one read of everything would be cut off silently at the limit of the body.
    while len(data) <= max_bytes and (chunk := stream.read(CHUNK_BYTES)):
        data += chunk
    if len(data) > max_bytes:
        raise RequestEntityTooLarge
    return bytes(data)


def _holds_bytes(file: FileStorage) -> bool:
    """Return whether a part without a file name is not the empty file field of a browser."""
    is_filled = bool(file.stream.read(1))
    file.stream.seek(0)
    return is_filled


def _unknown(name: str, known: Collection[str]) -> NoReturn:
    shown = name[:SHOWN]
    near = nearest(shown, known)
    hint = f"did you mean {near}?" if near else f"it accepts {', '.join(sorted(known)) or 'none'}"
    raise InputError(f"{shown} is not a parameter of this endpoint; {hint}", field=shown, code="unknown_parameter")


def _mixed(params: Mapping[str, list[Value]], types: Sequence[type[Parameters]]) -> NoReturn:
    """Raise InputError for two parameters of different forms of the request."""
    first = next(iter(params))
    kind = next(kind for kind in types if knows(kind, first))
    other = next(name for name in params if not knows(kind, name))
    raise InputError(f"{other[:SHOWN]} cannot be combined with {first[:SHOWN]}", field=other[:SHOWN])
