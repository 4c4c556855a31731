"""The reader's verdicts that images are not duplicates, in the metadata of both images."""

from collections.abc import Iterable, Mapping
from typing import Any

# Of the metadata: an object with the filepaths of the other images.
NOT_DUPLICATE_OF = "not_duplicate_of"


def are_distinct(first: str, second: str, metadata: Mapping[str, Mapping[str, Any] | None]) -> bool:
    """Return whether each of two filepaths has the verdict on the other; `metadata` are those of all filepaths.

    An image that is replaced loses its metadata, and with them the verdict.

    >>> are_distinct("a", "b", {"a": {"not_duplicate_of": {"b": True}}, "b": {"not_duplicate_of": {"a": True}}})
    True
    >>> are_distinct("a", "b", {"a": {"not_duplicate_of": {"b": True}}, "b": None})
    False
    """
    return _has(metadata[first], second) and _has(metadata[second], first)


def patch(filepath: str, group: Iterable[str]) -> dict[str, Any]:
    """Return the merge patch of an image for the verdict on all images of a group.

    >>> patch("a", ["a", "b"])
    {'not_duplicate_of': {'b': True}}
    """
    return {NOT_DUPLICATE_OF: {other: True for other in group if other != filepath}}


def _has(metadata: Mapping[str, Any] | None, other: str) -> bool:
    verdicts = (metadata or {}).get(NOT_DUPLICATE_OF)
    return isinstance(verdicts, Mapping) and verdicts.get(other) is True
