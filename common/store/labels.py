"""Labels: the values of a record's metadata, as filters compare them in every store."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

# A longer label is replaced by its digest, so that values of any length can be compared. An index stores the common
# prefixes of short labels only once.
PLAIN_MAX = 100
# Enough against collisions, accidental or constructed.
DIGEST_BYTES = 16
# Created once: json.dumps creates an encoder for each call with options.
_STRICT = json.JSONEncoder(allow_nan=False)


def labels(metadata: Mapping[str, Any] | None) -> set[str]:
    """Return the labels of all values in `metadata`, at any depth.

    The path of a value is its keys, joined by dots; an array's elements have the array's path. Nulls and empty
    containers have no label.

    >>> sorted(labels({"a": {"b": [1, True]}, "a.b": "x", "c": None}))
    ['["a.b","1"]', '["a.b","true"]', '["a.b","x"]']
    """
    result: set[str] = set()
    # An explicit stack: recursion would reach the interpreter's limit.
    left: list[tuple[str, Any]] = list((metadata or {}).items())
    while left:
        path, value = left.pop()
        # The most frequent types first: checks of abstract types are slow.
        if isinstance(value, str):
            result.add(_label(path, value))
        elif isinstance(value, int | float):
            result.add(_label(path, _STRICT.encode(value)))
        elif isinstance(value, Mapping):
            left += [(f"{path}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, Sequence):
            left += [(path, inner) for inner in value]
        elif value is not None:
            message = f"metadata contain a {type(value).__name__}"
            raise TypeError(message)
    return result


def required_labels(where: Mapping[str, str] | None) -> list[str]:
    """Return the labels that a record must all have to pass the filter."""
    return [_label(path, text) for path, text in (where or {}).items()]


def _label(path: str, text: str) -> str:
    # JSON separates path and text unambiguously, and is ASCII.
    label = f"[{_quoted(path)},{_quoted(text)}]"
    if len(label) <= PLAIN_MAX:
        return label
    digest = hashlib.blake2b(label.encode(), digest_size=DIGEST_BYTES).digest()
    return "#" + base64.b64encode(digest).decode().rstrip("=")
