"""The file of API keys, MATCH_API_KEYS_FILE: entries are added and removed, and the rest of the text stays.

The file has hashes of keys, not the keys.
"""

import hashlib
import os
import re
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from match_cli.exits import UsageProblem

# Secret scanners find keys in code by this prefix.
PREFIX = "match_"
KEY_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
PATTERN = re.compile(r"[a-z0-9*][a-z0-9_*-]{0,62}")
SCOPES = ("read", "write", "admin")
TABLE = "[[keys]]"


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key in the file."""

    name: str
    scopes: Sequence[str]
    collections: Sequence[str] | None = None


class KeysFile:
    """The file at a path; a missing file has no keys. Raises UsageProblem."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._text = path.read_text("utf-8")
        except FileNotFoundError:
            self._text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise UsageProblem(f"{path}: {getattr(error, 'strerror', None) or 'invalid UTF-8'}") from None
        self.keys = self._parse(self._text)

    def add(self, name: str, scopes: Sequence[str], *, collections: Sequence[str] = ()) -> str:
        """Add a new key, write the file, and return the key: it is not in the file.

        `collections` are names and patterns of the collections that it may use; without any, all.
        """
        if not NAME.fullmatch(name):
            raise UsageProblem("a name has 1 to 64 letters, digits, dots, hyphens or underscores")
        if unknown := [scope for scope in scopes if scope not in SCOPES]:
            raise UsageProblem(f"{unknown[0]} is not a scope: {', '.join(SCOPES)}")
        if invalid := [pattern for pattern in collections if not PATTERN.fullmatch(pattern)]:
            raise UsageProblem(f"{invalid[0]}: a collection has lowercase letters, digits, '_', '-' or '*'")
        if any(key.name == name for key in self.keys):
            raise UsageProblem(f"{self._path} already has a key with the name {name}")
        key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
        digest = hashlib.sha256(key.encode()).hexdigest()
        separator = "" if not self._text else "\n" if self._text.endswith("\n") else "\n\n"
        entry = f'{TABLE}\nname = "{name}"\nsha256 = "{digest}"\nscopes = {_list(scopes)}\n'
        entry += f"collections = {_list(collections)}\n" if collections else ""
        self._write(self._text + separator + entry)
        return key

    def remove(self, name: str) -> None:
        """Remove a key and write the file."""
        if all(key.name != name for key in self.keys):
            raise UsageProblem(f"{self._path} has no key with the name {name}")
        first, *blocks = re.split(rf"(?m)^(?={re.escape(TABLE)})", self._text)
        kept = [block for block in blocks if tomllib.loads(block)["keys"][0].get("name") != name]
        self._write((first + "".join(kept)).rstrip("\n") + "\n")

    def _parse(self, text: str) -> list[NamedKey]:
        try:
            tables: Any = tomllib.loads(text).get("keys", [])
            return [
                NamedKey(table["name"], tuple(table["scopes"]), _patterns(table.get("collections"))) for table in tables
            ]
        except (ValueError, TypeError, KeyError, AttributeError):
            # A parser's message may quote a key that was written in place of its hash.
            raise UsageProblem(f"{self._path} is not a file of API keys") from None

    def _write(self, text: str) -> None:
        """Replace the file whole; only its owner may read it."""
        self.keys = self._parse(text)
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            mode = self._path.stat().st_mode & 0o777 if self._path.exists() else 0o600
            partial.unlink(missing_ok=True)
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError as error:
            raise UsageProblem(f"{self._path}: {error.strerror}") from error
        self._text = text


def _list(values: Sequence[str]) -> str:
    """Return a list of texts that need no escapes, as TOML."""
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def _patterns(collections: Sequence[str] | None) -> Sequence[str] | None:
    return None if collections is None else tuple(collections)
