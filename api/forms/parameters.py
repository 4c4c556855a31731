"""Types of single parameters. Each parses the text or file of a form, or raises an error with the accepted values."""

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

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

from common.collection_names import DEFAULT_COLLECTION, NAME
from common.queue import batches
from common.record_rules import (
    FILEPATH_BYTES,
    METADATA_BYTES,
    TOO_LARGE,
    check_filepath,
    check_metadata,
    check_prefix,
    check_size,
    check_string,
)

# An Idempotency-Key: printable ASCII, without white space at its ends. Headers of the same name are joined by a comma,
# so a key contains none.
REQUEST_KEY = re.compile(r"[!-+\--~]|[!-+\--~][ -+\--~]{0,253}[!-+\--~]")
# Each filter is a lookup in the store.
MAX_FILTERS = 16
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Types of the values of a filter in JSON.
SCALARS = (str, bool, int, float)
# The format of the JSON of an object, in the description of forms.
JSON_TEXT = "json-object"
# The suggestion of a similar word compares this many characters of the client's word: the time grows with its length.
COMPARED = 80
# Twenty digits exceed every bound; int() of thousands raises an error of its own.
MAX_DIGITS = 20
# A truncated cursor, or one of another list, passes the check once in 2^48 times.
CHECK_BYTES = 6

T = TypeVar("T")


class Parameters(BaseModel):
    """The parameters of one endpoint, as fields; api/endpoints.py explains how to declare them.

    `plain` are the names of parameters without brackets; `keyed` maps the names of parameters of the form `name[key]`
    to an example, of which `indexed` are those of the form `name[0]`. None contains parameters in the path or in
    `headers`, which maps fields to names of headers.
    `in_json`: a JSON body may have the parameters, except files.
    """

    model_config = ConfigDict(frozen=True)

    plain: ClassVar[frozenset[str]]
    keyed: ClassVar[Mapping[str, str]]
    indexed: ClassVar[frozenset[str]]
    headers: ClassVar[Mapping[str, str]]
    in_json: ClassVar[bool] = True

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Sort the fields by their place in a request."""
        marks = {name: [type(mark) for mark in field.metadata] for name, field in cls.model_fields.items()}
        indexed = {name: f"{name}[0]" for name, mark in marks.items() if Indexed in mark}
        cls.indexed = frozenset(indexed)
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
    """Marks a field whose value is in the path."""


@dataclass(frozen=True, slots=True)
class InHeader:
    """Marks a field whose value is in the header of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Keyed:
    """Marks a dictionary whose items are parameters `name[key]=value`, or one parameter `name` with a JSON object."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """Marks a dictionary by index whose items are parameters `name[0]=value`, with indices below `max_count`.

    They may also be parameters `name`, each with the index of its position among them.

    `each` is the type of the values in the documentation, for values that are validated one by one elsewhere.
    """

    max_count: int
    each: Any = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's interface
        """Parse the indices and sort by them."""
        return core_schema.with_info_before_validator_function(self._sort, handler(source))

    def _sort(self, values: Mapping[str, object], info: core_schema.ValidationInfo) -> dict[int, object]:
        for key in values:
            # Without leading zeros: 7 and 07 would be two names of one item.
            if not is_whole(key, 0, self.max_count - 1) or key != f"{int(key)}":
                field = f"{info.field_name}[{key[:MAX_DIGITS]}]"
                raise wrong(f"must have an index from 0 to {self.max_count - 1} without leading zeros", field=field)
        by_index = {int(key): value for key, value in values.items()}
        return dict(sorted(by_index.items()))


def wrong(problem: str, *, field: str = "", code: str = "wrong_parameter") -> PydanticCustomError:
    """Return an error of a parameter; `problem` is its text after the name, such as "is empty".

    `field` is the name of the parameter, by default that of the field which is validated.
    """
    return PydanticCustomError(code, "{problem}", {"problem": problem, "field": field})


def wrong_together(
    names: Sequence[str], word: str, problem: str, *, code: str = "wrong_parameter"
) -> PydanticCustomError:
    """Return an error of several parameters, such as "image or url is required"; `word` joins their names.

    The error's field is the first of `names`.
    """
    return PydanticCustomError(code, "{problem}", {"problem": problem, "field": names[0], "names": names, "word": word})


def nearest(word: str, known: Collection[str]) -> str | None:
    """Return the known word that is most similar, or None where none is similar.

    >>> nearest("File_Path", ["filepath", "limit"])
    'filepath'
    >>> nearest("bogus", ["filepath", "limit", "offset"])
    """
    return next(iter(get_close_matches(word.lower(), sorted(known), n=1)), None)


def text(value: object) -> str:
    """Return the value; raises an error if it is not text."""
    if isinstance(value, str):
        return value
    raise wrong("must be text, not a file" if isinstance(value, FileStorage) else "must be text")


def is_whole(digits: str, low: int, high: int) -> bool:
    """Return whether the text is a whole number from `low` to `high`, in ASCII digits only."""
    return digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS and low <= int(digits) <= high


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
        """Parse the number."""
        bounds = core_schema.int_schema(ge=self.low, le=self.high)
        return core_schema.no_info_before_validator_function(self._read, bounds)

    def _read(self, value: object) -> int:
        digits = text(value)
        if not is_whole(digits, self.low, self.high):
            raise wrong(f"must be a whole number from {self.low} to {self.high}")
        return int(digits)


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`; a string is the name of the setting with the bound."""

    low: float
    high: float | str

    def __get_pydantic_core_schema__(self, _type: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's interface
        """Parse the number."""
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
        """Accept one of the words."""
        return core_schema.no_info_before_validator_function(self._read, core_schema.literal_schema(list(self.words)))

    def _read(self, value: object) -> str:
        word = text(value)
        if word not in self.words:
            near = nearest(word[:COMPARED], self.words)
            hint = f"; did you mean {near}?" if near else ""
            among = "one of " if len(self.words) > 1 else ""
            raise wrong(f"must be {among}{', '.join(self.words)}{hint}")
        return word


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the list `kind`, encoded by `cursor`; an empty text is the beginning.

    `position` is the pattern of its positions, since clients can forge a text that passes the check.
    """

    kind: str
    position: re.Pattern[str]

    def __get_pydantic_core_schema__(self, _type: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's interface
        """Parse the position."""
        return core_schema.no_info_before_validator_function(self._read, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the text."""
        return {**handler(schema), "format": "cursor"}

    def _read(self, value: object) -> str:
        encoded = text(value)
        try:
            position = base64.urlsafe_b64decode(encoded)[CHECK_BYTES:].decode()
        except ValueError:
            position = ""
        if encoded and not (self.position.fullmatch(position) and encoded == cursor(self.kind, position)):
            raise wrong("must be empty or the cursor of a previous reply")
        return position


def cursor(kind: str, position: str) -> str:
    """Return the position in the list `kind` as an opaque text with a check against damage.

    >>> cursor("tasks", "17") == cursor("list", "17")
    False
    """
    check = hashlib.blake2b(f"{kind} {position}".encode(), digest_size=CHECK_BYTES).digest()
    return base64.urlsafe_b64encode(check + position.encode()).decode()


def obeying(check: Callable[[T], None], value: T) -> T:
    """Return the value; raises an error if it breaks the rule."""
    try:
        check(value)
    except ValueError as error:
        raise wrong(str(error)) from None
    return value


def valid_filepath(value: object) -> str:
    """Return the text if it is a valid filepath."""
    return obeying(check_filepath, text(value))


def valid_prefix(value: object) -> str:
    """Return the text if a valid filepath may begin with it; an empty text begins all."""
    return obeying(check_prefix, text(value))


Filepath = Annotated[
    str,
    BeforeValidator(valid_filepath),
    Field(json_schema_extra={"format": "filepath", "minLength": 1, "maxLength": FILEPATH_BYTES}),
]
FilepathPrefix = Annotated[
    str,
    BeforeValidator(valid_prefix),
    Field(json_schema_extra={"format": "filepath", "maxLength": FILEPATH_BYTES}),
]


def _collection(value: object) -> str:
    name = text(value)
    if not NAME.fullmatch(name):
        raise wrong(
            "must have 1 to 63 lowercase letters, digits, underscores or hyphens, and begin with a letter or digit"
        )
    return name


CollectionName = Annotated[
    str,
    BeforeValidator(_collection),
    Field(json_schema_extra={"minLength": 1, "maxLength": 63, "pattern": f"^{NAME.pattern}$"}),
]


class InCollection(Parameters):
    """Parameters of a request about one collection, which the API key of the request must be allowed to use."""

    collection: Annotated[
        CollectionName,
        Field(description="The collection. A filepath is unique within its collection."),
    ] = DEFAULT_COLLECTION


class InExistingCollection(InCollection):
    """The same, if the collection must exist."""


def _request_key(value: object) -> str:
    key = text(value)
    if not REQUEST_KEY.fullmatch(key):
        raise wrong("must have 1 to 255 printable ASCII characters and no comma", field="Idempotency-Key")
    return key


RequestKey = Annotated[
    str,
    BeforeValidator(_request_key),
    Field(json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": f"^({REQUEST_KEY.pattern})$"}),
]


def _batch_id(value: object, *, field: str = "") -> str:
    batch_id = text(value)
    if not batches.ID.fullmatch(batch_id):
        problem = "must have 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit"
        raise wrong(problem, field=field)
    return batch_id


_BATCH_ID = Field(json_schema_extra={"minLength": 1, "maxLength": 64, "pattern": f"^{batches.ID.pattern}$"})
BatchId = Annotated[str, BeforeValidator(_batch_id), _BATCH_ID]
# In a header.
ChosenBatchId = Annotated[str, BeforeValidator(partial(_batch_id, field=batches.HEADER)), _BATCH_ID]


def valid_metadata(value: object) -> dict[str, Any] | None:
    """Parse a JSON object within the limits on size, strings, numbers and depth; `null` means no metadata."""
    metadata = _json(value)
    return None if metadata is None else valid_object(metadata)


def _json(value: object) -> Any:  # noqa: ANN401 - JSON
    """Parse the JSON of a field, or of a part that has the media type of JSON and a file name as browsers add it."""
    if isinstance(value, FileStorage) and value.mimetype == "application/json":
        try:
            value = value.stream.read(METADATA_BYTES + 1).decode()
        except UnicodeDecodeError:
            raise wrong("is not valid UTF-8, or too large") from None
    source = text(value)
    if len(source.encode("utf-8", "surrogatepass")) > METADATA_BYTES:
        raise wrong(TOO_LARGE)
    try:
        return _DECODER.decode(source)
    except PydanticCustomError:
        raise
    except (ValueError, RecursionError):
        raise wrong("is not valid JSON") from None


def valid_object(value: object) -> dict[str, Any]:
    """Return the object if it is within the limits on strings, numbers and depth."""
    if not isinstance(value, dict):
        raise wrong("must be a JSON object")
    return obeying(check_metadata, value)


def _small_object(value: object) -> dict[str, Any]:
    return obeying(check_size, valid_object(value))


# Metadata in a field of a form, and in a line of JSON.
Metadata = Annotated[
    dict[str, Any] | None,
    BeforeValidator(valid_metadata),
    WithJsonSchema(
        {
            "type": "string",
            "format": JSON_TEXT,
            "maxLength": METADATA_BYTES,
        }
    ),
]
MetadataObject = Annotated[dict[str, Any], BeforeValidator(_small_object)]


def _reject_constant(word: str) -> NoReturn:
    raise wrong(f"contains {word}, which is not valid JSON")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)


def _url(value: object) -> str:
    url = text(value)
    if not url.isascii() and any(unicodedata.category(char) == "Cs" for char in url):
        raise wrong("contains an unpaired surrogate")
    return url


def _upload(value: object) -> FileStorage:
    if isinstance(value, FileStorage):
        return value
    raise wrong("must be a file in a multipart form")


Url = Annotated[str, BeforeValidator(_url), Field(json_schema_extra={"format": "uri", "minLength": 1})]
Upload = Annotated[
    InstanceOf[FileStorage],
    BeforeValidator(_upload),
    WithJsonSchema({"type": "string", "format": "binary"}),
]


def _filter(value: object) -> Mapping[str, object]:
    filters = value if isinstance(value, Mapping) else _filter_in_json(value)
    if len(filters) > MAX_FILTERS:
        raise wrong(f"has more than {MAX_FILTERS} keys")
    return filters


def _filter_in_json(value: object) -> Mapping[str, object]:
    filters = _json(value)
    if not isinstance(filters, dict) or not all(isinstance(item, SCALARS) for item in filters.values()):
        raise wrong("must be a JSON object of strings, numbers and booleans")
    return {key: item if isinstance(item, str) else json.dumps(item) for key, item in filters.items()}


def _filter_value(value: object) -> str:
    return obeying(check_string, text(value))


Filters = Annotated[
    dict[str, Annotated[str, BeforeValidator(_filter_value)]],
    Keyed(),
    BeforeValidator(_filter),
    Field(json_schema_extra={"maxProperties": MAX_FILTERS}),
]
