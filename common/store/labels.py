"""What a metadata filter compares: the values of a record's metadata as labels, the same for every store."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

# A longer label is replaced by its digest: short ones share their beginnings in an index, long ones only fill it, and
# no value is too long to be compared.
PLAIN_MAX = 100
# No two values meet by chance, and nobody can make them meet.
DIGEST_BYTES = 16
# Made once: json.dumps makes a new one for each call with options.
_STRICT = json.JSONEncoder(allow_nan=False)


def labels(metadata: Mapping[str, Any] | None) -> set[str]:
    """Return the labels of all values in `metadata`, however deep.

    The path of a value is its keys, joined by dots; an array's elements have the array's path. Nulls, and what is
    empty, have none.

    >>> sorted(labels({"a": {"b": [1, True]}, "a.b": "x", "c": None}))
    ['["a.b","1"]', '["a.b","true"]', '["a.b","x"]']
    """
    found: set[str] = set()
    # A list of what is left, where recursion would end at the interpreter's limit.
    left: list[tuple[str, Any]] = list((metadata or {}).items())
    while left:
        path, value = left.pop()
        # The most frequent first: an abstract type takes long to be ruled out.
        if isinstance(value, str):
            found.add(_label(path, value))
        elif isinstance(value, int | float):
            found.add(_label(path, _STRICT.encode(value)))
        elif isinstance(value, Mapping):
            left += [(f"{path}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, Sequence):
            left += [(path, inner) for inner in value]
        elif value is not None:
            message = f"metadata hold a {type(value).__name__}"
            raise TypeError(message)
    return found


def wanted(where: Mapping[str, str] | None) -> list[str]:
    """Return the labels that a record needs, all of them, to pass the filter."""
    return [_label(path, text) for path, text in (where or {}).items()]


def _label(path: str, text: str) -> str:
    # JSON keeps path and text apart whatever they hold, and is ASCII throughout.
    label = f"[{_quoted(path)},{_quoted(text)}]"
    if len(label) <= PLAIN_MAX:
        return label
    digest = hashlib.blake2b(label.encode(), digest_size=DIGEST_BYTES).digest()
    return "#" + base64.b64encode(digest).decode().rstrip("=")
