"""The rules for filepaths and metadata, equal for requests, imports and every store.

Each function raises ValueError. Its text names the problem, and follows the name of the field in a message.
"""

import json
import unicodedata
from collections.abc import Mapping
from math import isfinite, isnan

FILEPATH_BYTES = 2048
METADATA_BYTES = 65_536
# Of a string, and of all keys on the path to a value together: Elasticsearch's limit on a term.
METADATA_STRING_BYTES = 8192
# Elasticsearch's own limit on nested objects in a flattened field.
METADATA_DEPTH = 20
# Of an integer: the limit of the JSON parser of Elasticsearch and OpenSearch. Python's own is 4,300.
METADATA_DIGITS = 1000
# In a decoded name it replaces bytes that were not UTF-8.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

TOO_LARGE = f"is larger than {METADATA_BYTES} bytes"
_MAX_INTEGER = 10**METADATA_DIGITS
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def check_filepath(name: str) -> None:
    """Check that a name has 1 to 2,048 bytes of UTF-8 and no control character."""
    if not name:
        raise ValueError("is empty")
    check_prefix(name)


def check_prefix(name: str) -> None:
    """Check that a valid filepath may begin with a text; an empty text begins all."""
    if REPLACEMENT in name:
        raise ValueError("is not valid UTF-8")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > FILEPATH_BYTES:
        message = f"has {size} bytes, more than {FILEPATH_BYTES}"
        raise ValueError(message)
    # Printable text contains no control character, and this check takes a tenth of the time.
    if not name.isprintable() and any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        raise ValueError("contains a control character")


def check_metadata(metadata: Mapping[str, object]) -> None:
    """Check the strings, numbers, keys and depth of metadata; `check_size` is separate."""
    _check(metadata, ())


def check_size(metadata: Mapping[str, object]) -> None:
    """Check the size of metadata as JSON without spaces."""
    if len(_ENCODER.encode(metadata).encode()) > METADATA_BYTES:
        raise ValueError(TOO_LARGE)


def check_string(value: str) -> None:
    """Check a string of metadata, or of a filter that is compared with them."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError("contains an unpaired surrogate") from None
    if size > METADATA_STRING_BYTES:
        message = f"contains a string, or keys on one path, of more than {METADATA_STRING_BYTES} bytes"
        raise ValueError(message)


def _check(value: object, path: tuple[str, ...]) -> None:
    """Check a value and its contents; `path` are the keys that lead to it, where an array is an empty key."""
    if len(path) > METADATA_DEPTH:
        message = f"is nested deeper than {METADATA_DEPTH} levels"
        raise ValueError(message)
    if isinstance(value, str):
        check_string(value)
    elif isinstance(value, int | float):
        _check_number(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            if "\0" in key:
                raise ValueError("contains a key with a NUL character")
            check_string("".join((*path, key)))
            _check(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            _check(item, (*path, ""))


def _check_number(number: float) -> None:
    if isinstance(number, int):
        if abs(number) >= _MAX_INTEGER:
            message = f"contains an integer of more than {METADATA_DIGITS} digits"
            raise ValueError(message)
    elif not isfinite(number):
        problem = "NaN, which is not valid JSON" if isnan(number) else "a number that is too large"
        message = f"contains {problem}"
        raise ValueError(message)
