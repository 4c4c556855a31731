"""API keys: names, scopes and collections, from a file that is reloaded when it changes.

The file is TOML and contains hashes of keys, not the keys:

    [[keys]]
    name = "importer"
    sha256 = "…"
    scopes = ["read", "write"]
    collections = ["a", "shop-*"]

Without `collections` a key may use all collections; a `*` stands for any characters.

`python -m api.new_key importer read write` makes a key and these lines. A key has 256 random bits, so one round of
SHA-256 is enough; passwords need a slow hash because they can be guessed.
"""

import hashlib
import hmac
import logging
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from common.collection_names import PATTERN, matches
from common.errors import ConfigError

log = logging.getLogger(__name__)

CHECK_EVERY_S = 1.0
# The log repeats the error of an invalid file.
LOG_EVERY_S = 60.0
# Names are written to logs and to Redis.
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """A permission of a key; no scope includes another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, known by its hash.

    `collections` are names and patterns of the collections that it may use; None for all.
    """

    name: str
    sha256: str
    scopes: frozenset[Scope]
    collections: tuple[str, ...] | None = None

    def allows(self, collection: str) -> bool:
        """Return whether the key may use the collection."""
        return self.collections is None or matches(collection, self.collections)


class Keyring:
    """The keys of a file. While the file is invalid or missing, the last valid keys stay in use.

    Raises ConfigError if the file is invalid at the start.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._clock = clock
        self._reloading = Lock()
        self._check_at = clock() + CHECK_EVERY_S
        self._log_at = 0.0
        try:
            self._data = path.read_bytes()
            self._keys = parse(self._data)
        except (OSError, ValueError) as error:
            raise ConfigError(f"MATCH_API_KEYS_FILE {path}: {_reason(error)}") from error

    def find(self, secret: str) -> Key | None:
        """Return the key with this secret, in a time that is independent of the other keys."""
        self._reload_if_due()
        digest = hash_of(secret)
        match = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                match = key
        return match

    def _reload_if_due(self) -> None:
        """Reload the file once a second, in one thread.

        A change is found in the bytes, not in the time of the file: a mounted Secret is replaced by a symbolic link.
        """
        if self._clock() < self._check_at or not self._reloading.acquire(blocking=False):
            return
        try:
            self._check_at = self._clock() + CHECK_EVERY_S
            self._reload()
        finally:
            self._reloading.release()

    def _reload(self) -> None:
        try:
            data = self._path.read_bytes()
            if data == self._data:
                return
            keys = parse(data)
        except (OSError, ValueError) as error:
            if self._clock() >= self._log_at:
                self._log_at = self._clock() + LOG_EVERY_S
                log.error("invalid keys file %s, the previous keys stay in use: %s", self._path, _reason(error))  # noqa: TRY400 - the reason is in the line
            return
        self._data, self._keys, self._log_at = data, keys, 0.0
        log.warning("API keys reloaded: %s", ", ".join(key.name for key in keys))


def hash_of(secret: str) -> str:
    """Return the hash of a key as the file contains it."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def parse(data: bytes) -> tuple[Key, ...]:
    """Return the keys of the file; raises ValueError, whose text contains nothing of the file."""
    try:
        document = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as error:
        # The position, not the text at it: an operator may have written a key instead of its hash.
        position = re.search(r"\(at .*\)", str(error))
        raise ValueError(f"invalid TOML {position[0] if position else ''}".rstrip()) from None
    except UnicodeDecodeError:
        raise ValueError("invalid UTF-8") from None
    tables = document.get("keys")
    if document.keys() != {"keys"} or not isinstance(tables, list) or not tables:
        raise ValueError("must contain [[keys]] tables, one per key, and nothing else")
    keys = tuple(_key(number, table) for number, table in enumerate(tables, 1))
    for name in ("name", "sha256"):
        if len({getattr(key, name) for key in keys}) < len(keys):
            raise ValueError(f"two keys have the same {name}")
    return keys


def _key(number: int, table: Any) -> Key:  # noqa: ANN401 - TOML
    if not isinstance(table, dict) or table.keys() - {"collections"} != {"name", "sha256", "scopes"}:
        raise ValueError(f"key {number} must have name, sha256 and scopes, may have collections, and nothing else")
    name, digest, scopes = table["name"], table["sha256"], table["scopes"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"key {number}: name must have 1 to 64 letters, digits, '.', '_' or '-'")
    if not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise ValueError(f"key {number}, {name}: sha256 must be 64 hexadecimal digits")
    if not isinstance(scopes, list) or not scopes or not all(scope in [*Scope] for scope in scopes):
        raise ValueError(f"key {number}, {name}: scopes must be some of {', '.join(Scope)}")
    return Key(name, digest, frozenset(Scope(scope) for scope in scopes), _collections(table, f"key {number}, {name}"))


def _collections(table: dict[str, Any], about: str) -> tuple[str, ...] | None:
    """Return the key's collections; an empty list is an error, because it might be read as all or as none."""
    if "collections" not in table:
        return None
    patterns = table["collections"]
    if not isinstance(patterns, list) or not patterns:
        raise ValueError(f'{about}: collections must be a list of names or patterns, such as ["a", "shop-*"]')
    if not all(isinstance(pattern, str) and PATTERN.fullmatch(pattern) for pattern in patterns):
        raise ValueError(f"{about}: collections must have lowercase letters, digits, '_', '-' or '*' only")
    return tuple(patterns)


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else str(error)
