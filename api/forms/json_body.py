"""JSON bodies: from the bytes of an object to the fields of the form with the same parameters."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from api.forms.parameters import JSON_TEXT, SCALARS, Indexed, Keyed, Parameters
from common.errors import InputError

JSON_TYPE = "application/json"
# A thousand filepaths of the maximum length take half of it.
JSON_BYTES = 4 * 1024 * 1024
# Characters of an unknown name in an error text.
SHOWN = 80
# Python's types of JSON's types. A boolean is an int in Python only.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
    # The description of a form has text, which clients made from it send in JSON too.
    "object": (dict, str, type(None)),
}


@dataclass(frozen=True, slots=True)
class _Repeated:
    """An object that contains a key more than once."""

    key: str


def decode(body: bytes, *, field: str = "body") -> dict[str, Any]:
    """Return the object; raises InputError for anything else, and for values that no form could contain.

    `field` is the name of the whole in errors.
    """
    try:
        values = json.loads(body.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise _wrong(field, "is not valid UTF-8") from None
    except ValueError:
        raise _wrong(field, "is not valid JSON") from None
    except RecursionError:
        raise _wrong(field, "is nested too deeply") from None
    if isinstance(values, _Repeated):
        raise _repeated(values.key)
    if not isinstance(values, dict):
        raise _wrong(field, "must be a JSON object")
    for name, value in values.items():
        _check(name, value)
    return values


def json_types(types: Iterable[type[Parameters]]) -> list[type[Parameters]]:
    """Return the types whose parameters may be in a JSON body."""
    return [kind for kind in types if kind.in_json]


def json_names(types: Iterable[type[Parameters]]) -> set[str]:
    """Return the names of their parameters in a JSON body: those with keys are one object or one list."""
    return {name for kind in json_types(types) for name in (*kind.plain, *kind.keyed)}


def form_fields(values: Mapping[str, Any], types: Sequence[type[Parameters]]) -> Iterator[tuple[str, str]]:
    """Yield the fields of the form with these parameters, whose names are among `json_names`.

    Raises InputError for a value of another JSON type than its parameter has.
    """
    kinds = {name: kind for kind in reversed(json_types(types)) for name in (*kind.plain, *kind.keyed)}
    for name, value in values.items():
        if name in kinds[name].keyed:
            yield from _with_keys(name, value, kinds[name])
        else:
            yield name, _text(name, value, _types_of(kinds[name])[name])


def _with_keys(name: str, value: Any, kind: type[Parameters]) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON
    [mark] = [mark for mark in kind.model_fields[name].metadata if isinstance(mark, Keyed | Indexed)]
    if isinstance(mark, Keyed):
        if not isinstance(value, dict):
            raise _wrong(name, "must be a JSON object")
        for key, item in value.items():
            if not isinstance(item, SCALARS):
                raise _wrong(f"{name}[{key}]"[:SHOWN], "must be a JSON string, number or boolean")
            yield f"{name}[{key}]", item if isinstance(item, str) else json.dumps(item)
        return
    if not isinstance(value, list):
        raise _wrong(name, "must be a JSON array")
    if not 1 <= len(value) <= mark.max_count:
        raise _wrong(name, f"must have 1 to {mark.max_count} items")
    for number, item in enumerate(value):
        yield f"{name}[{number}]", _text(f"{name}[{number}]", item, "string")


def _text(name: str, value: Any, expected: str) -> str:  # noqa: ANN401 - JSON
    """Return the value as the text of a form."""
    if not isinstance(value, _TYPES[expected]) or (isinstance(value, bool) and expected != "boolean"):
        shown = "number" if expected == "integer" else expected
        raise _wrong(name, f"must be a JSON {shown}")
    if isinstance(value, str):
        return value
    # JSON has one type of numbers: 10.0 is a whole number.
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    # Without spaces, as the size of metadata is measured.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@cache
def _types_of(kind: type[Parameters]) -> Mapping[str, str]:
    """Return the JSON type of each parameter by its name."""
    return {name: json_type(schema) for name, schema in kind.model_json_schema()["properties"].items()}


def json_type(schema: Mapping[str, Any]) -> str:
    """Return the JSON type of a parameter that a form describes by this schema."""
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    if any(choice.get("format") == JSON_TEXT for choice in choices):
        return "object"
    return str(choices[0].get("type", "string"))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Repeated:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
    return _Repeated(key)


def _check(name: str, value: Any) -> None:  # noqa: ANN401 - JSON
    """Check what the decoder lets pass, by encoding it strictly."""
    shown = _shown(name)
    try:
        json.dumps([name, value], allow_nan=False, ensure_ascii=False, default=_reject).encode()
    except UnicodeEncodeError:
        raise _wrong(shown, "contains an unpaired surrogate") from None
    except ValueError:
        raise _wrong(shown, "contains NaN or a number that is too large") from None
    except RecursionError:
        raise _wrong(shown, "is nested too deeply") from None
    except TypeError as error:
        raise _wrong(shown, f"contains the key {error} more than once") from None


def _reject(repeated: _Repeated) -> None:
    raise TypeError(_shown(repeated.key))


def _shown(name: str) -> str:
    """Return a name of the client for an error text; an unpaired surrogate has no UTF-8."""
    return name[:SHOWN].encode("utf-8", "replace").decode()


def _repeated(key: str) -> InputError:
    shown = _shown(key)
    return InputError(f"{shown} occurs more than once", field=shown, code="repeated_parameter")


def _wrong(field: str, problem: str) -> InputError:
    return InputError(f"{field} {problem}", field=field)
