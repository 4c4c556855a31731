"""From an HTTP request to the type of what its endpoint takes, or an error that names the parameter."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import IO, Any, NoReturn, TypeVar

from flask import Request
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser, default_stream_factory

from api.forms.parameters import Parameters, nearest
from common.config import Settings
from common.errors import InputError

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
# The first is the one that is usual.
LINE_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
# A form has no more parts beside those that are numbered.
FORM_PARTS = 64
PIECE_BYTES = 64 * 1024
# Of a name that a client made up.
SHOWN = 80

P = TypeVar("P", bound=Parameters)
Value = str | FileStorage


class TooLarge(InputError):
    """A picture has more bytes than are read."""

    code = "too_large"


class UnsupportedBody(InputError):
    """The request's body is no form."""

    code = "unsupported_media_type"


class BoundedParser(FormDataParser):
    """A parser that bounds a urlencoded form as it does a multipart one; the framework's own reads it whole."""

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - the framework's own
        """Parse the form; raises RequestEntityTooLarge for one that has too many bytes or fields."""
        if mimetype == FORM_TYPES[1]:
            stream = BytesIO(self._read(stream))
        return super().parse(stream, mimetype, content_length, options)

    def _read(self, stream: IO[bytes]) -> bytes:
        data, most = bytearray(), self.max_form_memory_size or 0
        # In pieces: a read of everything would end silently at the bound of the whole body.
        while len(data) <= most and (piece := stream.read(PIECE_BYTES)):
            data += piece
        if len(data) > most or data.count(b"&") >= (self.max_form_parts or 0):
            raise RequestEntityTooLarge
        return bytes(data)


class StrictRequest(Request):
    """A request whose body is read as the form that it says it is, or not at all."""

    form_data_parser_class = BoundedParser

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        super().__init__(*args, **kwargs)
        self._opened: list[IO[bytes]] = []

    def make_form_data_parser(self) -> FormDataParser:
        """Return a parser that tells what is wrong, where the framework's own would hand out what it has."""
        parser = super().make_form_data_parser()
        parser.silent = False
        parser.stream_factory = self._open_file
        return parser

    def close(self) -> None:
        """Close the files of all parts, those of a form that broke off as well."""
        super().close()
        for file in self._opened:
            file.close()

    def _open_file(self, *args: Any, **kwargs: Any) -> IO[bytes]:  # noqa: ANN401 - passed on as they are
        self._opened.append(default_stream_factory(*args, **kwargs))
        return self._opened[-1]


def read_query(request: Request, types: Sequence[type[P]], settings: Settings) -> P:
    """Return what a request brings beside a body of JSON lines; raises InputError for a body that is none."""
    if request.mimetype not in LINE_TYPES:
        raise UnsupportedBody(f"the body must be lines of JSON ({LINE_TYPES[0]})", field="Content-Type")
    _check_coding(request)
    return _fit(request, types, _given([*request.args.items(multi=True)], types), settings)


def read(request: Request, types: Sequence[type[P]], settings: Settings) -> P:
    """Return what the request brings by query, form and path as the first of the types that knows all its names.

    Raises InputError for a parameter that none of them knows, that comes twice or that is wrong.
    """
    _check_type(request)
    _read_body(request)
    files = [(name, file) for name, file in request.files.items(multi=True) if file.filename or _holds_bytes(file)]
    texts = [*request.args.items(multi=True), *request.form.items(multi=True)]
    everything: Sequence[tuple[str | None, Value]] = (*texts, *files)
    return _fit(request, types, _given(everything, types), settings)


def _fit(request: Request, types: Sequence[type[P]], given: Mapping[str, Value], settings: Settings) -> P:
    fitting = next((kind for kind in types if all(knows(kind, name) for name in given)), None)
    if fitting is None:
        _mixed(given, types)
    headers = {field: request.headers[name] for field, name in fitting.headers.items() if name in request.headers}
    return parse(fitting, {**nested(fitting, given), **headers, **(request.view_args or {})}, settings)


def parse(
    kind: type[P], values: Mapping[str, Any], settings: Settings, *, shown: Callable[[str], str] = lambda name: name
) -> P:
    """Return the values as `kind`; raises InputError naming the first that is wrong.

    `shown` turns the name of a field into that by which the client knows it.
    """
    try:
        return kind.model_validate(values, context=settings)
    except ValidationError as error:
        raise input_error(error, shown) from None


def input_error(error: ValidationError, shown: Callable[[str], str]) -> InputError:
    """Return the first thing that is wrong as our error."""
    first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    field = shown(context.get("field") or _field(first["loc"]))
    if first["type"] == "missing":
        return InputError(f"{field} is required", field=field, code="missing_parameter")
    *others, last = [shown(name) for name in context.get("names", ())] or [field]
    about = f"{', '.join(others)} {context['word']} {last}" if others else last
    message = f"{about} {context.get('what', 'is wrong')}"
    code = first["type"] if "field" in context else InputError.code
    return (TooLarge if code == TooLarge.code else InputError)(message, field=field, code=code)


def _field(where: tuple[str | int, ...]) -> str:
    name, *key = where
    return f"{name}[{key[0]}]"[:SHOWN] if key else str(name)


def knows(kind: type[Parameters], name: str) -> bool:
    """Say whether a parameter of this name is one of the type's."""
    return name in kind.plain or (name.endswith("]") and name.partition("[")[0] in kind.keyed)


def nested(kind: type[Parameters], given: Mapping[str, Value]) -> dict[str, Any]:
    """Return the values by field: those that come as `name[key]` in a dictionary by key."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in kind.plain:
            values[name] = value
        else:
            field, _, key = name[:-1].partition("[")
            values.setdefault(field, {})[key] = value
    return values


def _given(everything: Sequence[tuple[str | None, Value]], types: Sequence[type[Parameters]]) -> dict[str, Value]:
    """Return all parameters by name; one that nobody knows, or that comes twice, is an error."""
    if sum(name is None or "[" not in name for name, _ in everything) > FORM_PARTS:
        raise RequestEntityTooLarge
    given: dict[str, Value] = {}
    for name, value in everything:
        if name is None:
            raise InputError("a part of the form has no name", field="body")
        check_names([name], types)
        if name in given:
            told = name[:SHOWN]
            raise InputError(f"{told} is given more than once", field=told, code="repeated_parameter")
        given[name] = value
    return given


def check_names(names: Iterable[str], types: Sequence[type[Parameters]]) -> None:
    """Raise InputError for a name that none of the types knows, with the one like it, else all that they know."""
    for name in names:
        if not any(knows(kind, name) for kind in types):
            _unknown(name, types)


def _check_type(request: Request) -> None:
    """Refuse a body that is no form: its parameters would pass for missing ones."""
    has_body = request.content_length or "Transfer-Encoding" in request.headers
    if has_body and request.mimetype not in FORM_TYPES:
        raise UnsupportedBody(f"the body must be a form ({' or '.join(FORM_TYPES)})", field="Content-Type")
    if has_body:
        _check_coding(request)


def _check_coding(request: Request) -> None:
    """Refuse a body that is compressed: it would pass for one that is broken."""
    if (request.content_encoding or "identity").lower() != "identity":
        raise UnsupportedBody("the body must come as it is, without a Content-Encoding", field="Content-Encoding")


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


def _unknown(name: str, types: Sequence[type[Parameters]]) -> NoReturn:
    told = name[:SHOWN]
    known = sorted({name for kind in types for name in (*kind.plain, *kind.keyed.values())})
    near = nearest(told, known)
    hint = f"did you mean {near}?" if near else f"it takes {', '.join(known) or 'none'}"
    raise InputError(f"{told} is not a parameter of this endpoint; {hint}", field=told, code="unknown_parameter")


def _mixed(given: Mapping[str, Value], types: Sequence[type[Parameters]]) -> NoReturn:
    """Tell of two parameters that belong to different forms of the request."""
    first = next(iter(given))
    kind = next(kind for kind in types if knows(kind, first))
    other = next(name for name in given if not knows(kind, name))
    raise InputError(f"{other[:SHOWN]} cannot be given together with {first[:SHOWN]}", field=other[:SHOWN])
