"""The service's URL and the API key: from the environment, or from a file of profiles.

The file is TOML, with a table for each profile:

    [default]
    url = "https://match.example.org"
    api_key_file = "~/.config/match/key"
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from match_cli.exits import UsageProblem
from match_client.sources import is_url

DEFAULT_URL = "http://127.0.0.1:8888"
DEFAULT_PROFILE = "default"
FILE = "profiles.toml"
FIELDS = {"url", "api_key", "api_key_file"}
READABLE_BY_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of a service, and the API key if it has one."""

    url: str
    api_key: str | None = field(default=None, repr=False)


def connection(
    environ: Mapping[str, str], folder: Path, *, url: str | None = None, profile: str | None = None
) -> Connection:
    """Return the service to use. Raises UsageProblem.

    The order is: `url`, MATCH_URL, the profile, this machine. A profile's key is sent only to the profile's URL.
    """
    api_key = environ.get("MATCH_API_KEY") or None
    url = url or (environ.get("MATCH_URL") or None if profile is None else None)
    if url is not None:
        return Connection(_checked(url), api_key)
    name = profile or environ.get("MATCH_PROFILE") or DEFAULT_PROFILE
    table = _profile(folder / FILE, name)
    if table is None:
        if name != DEFAULT_PROFILE:
            raise UsageProblem(f"{folder / FILE} has no profile {name}")
        return Connection(DEFAULT_URL, api_key)
    return Connection(_checked(table["url"]), api_key or _key(folder / FILE, table))


def _profile(path: Path, name: str) -> Mapping[str, Any] | None:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from error
    except ValueError:
        # The parser's message may quote a key.
        raise UsageProblem(f"{path}: invalid TOML") from None
    table = document.get(name)
    if table is None:
        return None
    if not isinstance(table, dict) or not isinstance(table.get("url"), str) or table.keys() - FIELDS:
        raise UsageProblem(f"{path}: profile {name} must have url, may have api_key or api_key_file, and nothing else")
    return table


def _key(path: Path, table: Mapping[str, Any]) -> str | None:
    """Return the profile's key, if no other user can read it."""
    key: str | None = table.get("api_key")
    if key is None and "api_key_file" not in table:
        return None
    path = path if key is not None else Path(table["api_key_file"]).expanduser()
    try:
        if path.stat().st_mode & READABLE_BY_OTHERS:
            raise UsageProblem(f"{path} has an API key, and other users may read it: chmod 600 {path}")
        return key or path.read_text("utf-8").strip()
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from error


def _checked(url: str) -> str:
    if not is_url(url):
        raise UsageProblem(f"{url} is not a URL of a service: it must begin with http:// or https://")
    return url
