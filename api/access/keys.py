"""API keys: whose they are and what they open, from a file that is read again when it changes.

The file is TOML and holds no key, only hashes of keys:

    [[keys]]
    name = "importer"
    sha256 = "…"
    scopes = ["read", "write"]

`python -m api.new_key importer read write` makes a key and these lines. A key is 256 random bits, so that one round of
SHA-256 is enough: what makes passwords need a slow hash is that they can be guessed.
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

from common.errors import ConfigError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
# A file that stays broken is told again.
TELL_EVERY_S = 60.0
# Names stand in logs and in Redis.
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """What a key opens; none includes another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A key by its hash."""

    name: str
    sha256: str
    scopes: frozenset[Scope]


class Keyring:
    """The keys in a file; while the file is broken or gone, those that it held last.

    Raises ConfigError where there are none yet.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looking = Lock()
        self._look_at = clock() + LOOK_EVERY_S
        self._tell_at = 0.0
        try:
            self._data = path.read_bytes()
            self._keys = parse(self._data)
        except (OSError, ValueError) as error:
            raise ConfigError(f"MATCH_API_KEYS_FILE {path}: {_reason(error)}") from error

    def find(self, secret: str) -> Key | None:
        """Return the key that this is; how long that takes tells nothing of the others."""
        self._look()
        digest = hash_of(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _look(self) -> None:
        """Read the file again when it is time to, in one thread.

        Its bytes are compared, not its times: a mounted Secret is swapped by a symbolic link.
        """
        if self._clock() < self._look_at or not self._looking.acquire(blocking=False):
            return
        try:
            self._look_at = self._clock() + LOOK_EVERY_S
            self._read()
        finally:
            self._looking.release()

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
            if data == self._data:
                return
            keys = parse(data)
        except (OSError, ValueError) as error:
            if self._clock() >= self._tell_at:
                self._tell_at = self._clock() + TELL_EVERY_S
                log.error("the keys file %s cannot be used, its last keys stay valid: %s", self._path, _reason(error))  # noqa: TRY400 - the line says it all
            return
        self._data, self._keys, self._tell_at = data, keys, 0.0
        log.warning("the API keys were read again; now there are: %s", ", ".join(key.name for key in keys))


def hash_of(secret: str) -> str:
    """Return by what the file knows a key."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def parse(data: bytes) -> tuple[Key, ...]:
    """Return the keys in the file; raises ValueError saying what is wrong, without showing it."""
    try:
        document = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as error:
        # Where it is wrong, not what stands there: somebody may have put a key where its hash belongs.
        place = re.search(r"\(at .*\)", str(error))
        raise ValueError(f"is no TOML {place[0] if place else ''}".rstrip()) from None
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8") from None
    tables = document.get("keys")
    if document.keys() != {"keys"} or not isinstance(tables, list) or not tables:
        raise ValueError("must hold [[keys]], one table a key, and nothing else")
    keys = tuple(_key(number, table) for number, table in enumerate(tables, 1))
    for what in ("name", "sha256"):
        if len({getattr(key, what) for key in keys}) < len(keys):
            raise ValueError(f"has the same {what} twice")
    return keys


def _key(number: int, table: Any) -> Key:  # noqa: ANN401 - TOML
    if not isinstance(table, dict) or table.keys() != {"name", "sha256", "scopes"}:
        raise ValueError(f"key {number} must have name, sha256 and scopes, and nothing else")
    name, digest, scopes = table["name"], table["sha256"], table["scopes"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"key {number} needs a name of letters, digits, '.', '_' and '-'")
    if not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise ValueError(f"key {number}, {name}: sha256 must be 64 hexadecimal digits")
    if not isinstance(scopes, list) or not scopes or not all(scope in [*Scope] for scope in scopes):
        raise ValueError(f"key {number}, {name}: scopes must be some of {', '.join(Scope)}")
    return Key(name, digest, frozenset(Scope(scope) for scope in scopes))


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else str(error)
