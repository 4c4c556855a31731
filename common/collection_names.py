"""Names of collections, and the patterns of names that limit an API key."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

# The collection of requests that name none.
DEFAULT_COLLECTION = "default"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# A name in which `*` stands for any characters.
PATTERN = re.compile(r"[a-z0-9*][a-z0-9_*-]{0,62}")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether one of the patterns matches the whole name.

    >>> [matches(name, ["a", "shop-*"]) for name in ("a", "ab", "shop-1", "my-shop-1")]
    [True, False, True, False]
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)
