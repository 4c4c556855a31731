"""What single parameters are: their types, each of which says what is wrong with a value that it does not take.

Everything a form brings is text or a file; the types here make values of it.
"""

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite, isnan
from typing import Annotated, Any, ClassVar, NoReturn

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    InstanceOf,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from werkzeug.datastructures import FileStorage

FILEPATH_BYTES = 2048
METADATA_BYTES = 65_536
# Of a string, and of all the keys on the way to a value together: Elasticsearch has room for one such term.
METADATA_STRING_BYTES = 8192
# Elasticsearch's own limit on nested objects in a flattened field.
METADATA_DEPTH = 20
# A sender's own name for a request: printable ASCII, within a header's white space. Two headers of one name come joined
# by a comma, so that none may stand in it.
REQUEST_KEY = re.compile(r"[!-+\--~]|[!-+\--~][ -+\--~]{0,253}[!-+\--~]")
# Each costs the store a look of its own.
MOST_FILTERS = 16
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Whatever U+FFFD stands for is lost: the name was not UTF-8.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# So much of a word that a client made up is held against those that are known: the time grows with it.
LIKENED = 80
# Twenty digits are beyond any bound; int() of thousands would be an error of its own.
MOST_DIGITS = 20
# A cursor that was cut, or belongs to another list, passes by chance once in 2^48 times.
CHECK_BYTES = 6


class Parameters(BaseModel):
    """The parameters of one endpoint, as fields; see api/endpoints.py on how they are declared.

    `plain` are the names that a request may bring as they are, `keyed` those that it brings as `name[key]`, each with
    an example of such a name. What stands in the path is neither; nor are `headers`, the names of headers by field.
    """

    model_config = ConfigDict(frozen=True)

    plain: ClassVar[frozenset[str]]
    keyed: ClassVar[Mapping[str, str]]
    headers: ClassVar[Mapping[str, str]]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Sort the fields by how they come."""
        marks = {name: [type(mark) for mark in field.metadata] for name, field in cls.model_fields.items()}
        indexed = {name: f"{name}[0]" for name, mark in marks.items() if Indexed in mark}
        cls.keyed = indexed | {name: f"{name}[key]" for name, mark in marks.items() if Keyed in mark}
        cls.headers = {
            name: mark.name
            for name, field in cls.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, InHeader)
        }
        elsewhere = {*cls.keyed, *cls.headers}
        cls.plain = frozenset(name for name, mark in marks.items() if name not in elsewhere and InPath not in mark)


@dataclass(frozen=True, slots=True)
class InPath:
    """Marks a field whose value stands in the request's path."""


@dataclass(frozen=True, slots=True)
class InHeader:
    """Marks a field whose value stands in the request's header of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Keyed:
    """Marks a field, a dictionary, that comes as `name[key]=value`."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """Marks a field, a dictionary by number, that comes as `name[0]=value`, with numbers below `most`.

    `each` is the type of the values for documentation, where they are checked one by one elsewhere.
    """

    most: int
    each: Any = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's interface
        """Read the numbers, and sort by them."""
        return core_schema.with_info_before_validator_function(self._sort, handler(source))

    def _sort(self, given: Mapping[str, object], info: core_schema.ValidationInfo) -> dict[int, object]:
        for key in given:
            # One number has one name: 7 and 07 would be two for one item.
            if not is_whole(key, 0, self.most - 1) or key != f"{int(key)}":
                field = f"{info.field_name}[{key[:MOST_DIGITS]}]"
                raise wrong(f"must have a whole number from 0 to {self.most - 1} in its brackets", field=field)
        found = {int(key): value for key, value in given.items()}
        return dict(sorted(found.items()))


def wrong(what: str, *, field: str = "", code: str = "wrong_parameter") -> PydanticCustomError:
    """Return the error that says `what` of a parameter, as in "is empty"; `field` names it where it is another one."""
    return PydanticCustomError(code, "{what}", {"what": what, "field": field})


def wrong_together(names: Sequence[str], word: str, what: str, *, code: str = "wrong_parameter") -> PydanticCustomError:
    """Return the error that says `what` of some parameters, as in "image or url is required"; the first is to blame."""
    return PydanticCustomError(code, "{what}", {"what": what, "field": names[0], "names": names, "word": word})


def nearest(word: str, known: Collection[str]) -> str | None:
    """Return which of the known words was probably meant, None where none is like it.

    >>> nearest("File_Path", ["filepath", "limit"])
    'filepath'
    >>> nearest("bogus", ["filepath", "limit", "offset"])
    """
    return next(iter(get_close_matches(word.lower(), sorted(known), n=1)), None)


def text(value: object) -> str:
    """Return what came as text."""
    if isinstance(value, str):
        return value
    raise wrong("must be text, not a file" if isinstance(value, FileStorage) else "must be text")


def is_whole(digits: str, low: int, high: int) -> bool:
    """Say whether the text is a whole number from `low` to `high`, in ASCII digits alone."""
    return digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS and low <= int(digits) <= high


def _boolean(value: object) -> bool:
    word = text(value).lower()
    if word not in BOOLEANS:
        raise wrong("must be true, false, 1 or 0")
    return BOOLEANS[word]


Boolean = Annotated[bool, BeforeValidator(_boolean)]


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, _type: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's interface
        """Read the number from its text."""
        bounds = core_schema.int_schema(ge=self.low, le=self.high)
        return core_schema.no_info_before_validator_function(self._read, bounds)

    def _read(self, value: object) -> int:
        digits = text(value)
        if not is_whole(digits, self.low, self.high):
            raise wrong(f"must be a whole number from {self.low} to {self.high}")
        return int(digits)


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`; a bound that is a text is the setting of that name."""

    low: float
    high: float | str

    def __get_pydantic_core_schema__(self, _type: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's interface
        """Read the number from its text."""
        return core_schema.with_info_before_validator_function(self._read, core_schema.float_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the bounds."""
        return {**handler(schema), "minimum": self.low, "maximum": self.high}

    def _read(self, value: object, info: core_schema.ValidationInfo) -> float:
        high: float = getattr(info.context, self.high) if isinstance(self.high, str) else self.high
        try:
            number = float(text(value))
        except ValueError:
            number = float("nan")
        if not self.low <= number <= high:
            raise wrong(f"must be a number from {self.low:g} to {high:g}")
        return number


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def __get_pydantic_core_schema__(self, _type: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's interface
        """Read the word."""
        return core_schema.no_info_before_validator_function(self._read, core_schema.literal_schema(list(self.words)))

    def _read(self, value: object) -> str:
        word = text(value)
        if word not in self.words:
            near = nearest(word[:LIKENED], self.words)
            hint = f"; did you mean {near}?" if near else ""
            among = "one of " if len(self.words) > 1 else ""
            raise wrong(f"must be {among}{', '.join(self.words)}{hint}")
        return word


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list `kind`, as a reply gave it out (see `cursor`); an empty one is the beginning.

    `place` is what its places look like: anybody can make a text that passes for a cursor.
    """

    kind: str
    place: re.Pattern[str]

    def __get_pydantic_core_schema__(self, _type: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's interface
        """Read the place."""
        return core_schema.no_info_before_validator_function(self._read, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the text."""
        return {**handler(schema), "format": "cursor"}

    def _read(self, value: object) -> str:
        given = text(value)
        try:
            place = base64.urlsafe_b64decode(given)[CHECK_BYTES:].decode()
        except ValueError:
            place = ""
        if given and not (self.place.fullmatch(place) and given == cursor(self.kind, place)):
            raise wrong("must be empty or a cursor that this list gave out")
        return place


def cursor(kind: str, place: str) -> str:
    """Return `place` in the list `kind` as a client carries it: opaque, and told from any other text.

    >>> cursor("tasks", "17") == cursor("list", "17")
    False
    """
    check = hashlib.blake2b(f"{kind} {place}".encode(), digest_size=CHECK_BYTES).digest()
    return base64.urlsafe_b64encode(check + place.encode()).decode()


def valid_filepath(value: object) -> str:
    """Return the text if it can name a stored picture: 1 to 2,048 bytes of UTF-8 without control characters."""
    name = text(value)
    if not name:
        raise wrong("is empty")
    if REPLACEMENT in name:
        raise wrong("is not valid UTF-8")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > FILEPATH_BYTES:
        raise wrong(f"has {size} bytes, more than {FILEPATH_BYTES}")
    # What is printable holds none, and to see that takes a tenth of the time.
    if not name.isprintable() and any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        raise wrong("holds a control character")
    return name


Filepath = Annotated[
    str,
    BeforeValidator(valid_filepath),
    Field(json_schema_extra={"format": "filepath", "minLength": 1, "maxLength": FILEPATH_BYTES}),
]


def _request_key(value: object) -> str:
    key = text(value)
    if not REQUEST_KEY.fullmatch(key):
        what = "must be one header of 1 to 255 printable ASCII characters without a comma"
        raise wrong(what, field="Idempotency-Key", code="wrong_parameter")
    return key


RequestKey = Annotated[
    str,
    BeforeValidator(_request_key),
    Field(json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": f"^({REQUEST_KEY.pattern})$"}),
]


def valid_metadata(value: object) -> dict[str, Any]:
    """Return the JSON object that the text holds if it keeps to the limits on size, strings and depth."""
    source = text(value)
    if len(source.encode("utf-8", "surrogatepass")) > METADATA_BYTES:
        raise wrong(f"is larger than {METADATA_BYTES} bytes")
    try:
        found = _DECODER.decode(source)
    except PydanticCustomError:
        raise
    except (ValueError, RecursionError):
        raise wrong("is not valid JSON") from None
    return valid_object(found)


def valid_object(value: object) -> dict[str, Any]:
    """Return the object if it keeps to the limits on strings and depth."""
    if not isinstance(value, dict):
        raise wrong("must be a JSON object")
    _check_metadata(value, ())
    return value


def _small_object(value: object) -> dict[str, Any]:
    found = valid_object(value)
    if len(json.dumps(found, ensure_ascii=False).encode()) > METADATA_BYTES:
        raise wrong(f"is larger than {METADATA_BYTES} bytes")
    return found


# As the text of a form's field, and as a part of a JSON document.
Metadata = Annotated[
    dict[str, Any],
    BeforeValidator(valid_metadata),
    WithJsonSchema(
        {
            "type": "string",
            "format": "json-object",
            "maxLength": METADATA_BYTES,
        }
    ),
]
MetadataObject = Annotated[dict[str, Any], BeforeValidator(_small_object)]


def _no_number(word: str) -> NoReturn:
    raise wrong(f"holds {word}, which is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _check_metadata(value: object, way: tuple[str, ...]) -> None:
    """Check a value and all that it holds; `way` are the keys that lead to it, an array counting as an empty one."""
    if len(way) > METADATA_DEPTH:
        raise wrong(f"is nested deeper than {METADATA_DEPTH} levels")
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, float) and not isfinite(value):
        raise wrong("holds NaN, which is no JSON number" if isnan(value) else "holds a number that is too large")
    elif isinstance(value, dict):
        for key, held in value.items():
            if "\0" in key:
                raise wrong("holds a key with a NUL character")
            _check_string("".join((*way, key)))
            _check_metadata(held, (*way, key))
    elif isinstance(value, list):
        for held in value:
            _check_metadata(held, (*way, ""))


def _check_string(value: str) -> None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise wrong("holds half of a surrogate pair") from None
    if size > METADATA_STRING_BYTES:
        raise wrong(f"holds a string or keys of more than {METADATA_STRING_BYTES} bytes")


def _url(value: object) -> str:
    url = text(value)
    if not url.isascii() and any(unicodedata.category(char) == "Cs" for char in url):
        raise wrong("holds half of a surrogate pair")
    return url


def _upload(value: object) -> FileStorage:
    if isinstance(value, FileStorage):
        return value
    raise wrong("must be a file part of a multipart form")


Url = Annotated[str, BeforeValidator(_url), Field(json_schema_extra={"format": "uri", "minLength": 1})]
Upload = Annotated[
    InstanceOf[FileStorage],
    BeforeValidator(_upload),
    WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"}),
]


def _filter(given: Mapping[str, object]) -> Mapping[str, object]:
    if len(given) > MOST_FILTERS:
        raise wrong(f"is given for more than {MOST_FILTERS} keys")
    return given


def _filter_value(value: object) -> str:
    sought = text(value)
    _check_string(sought)
    return sought


Filters = Annotated[
    dict[str, Annotated[str, BeforeValidator(_filter_value)]],
    Keyed(),
    BeforeValidator(_filter),
    Field(json_schema_extra={"maxProperties": MOST_FILTERS}),
]
