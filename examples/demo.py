"""Adds the example pictures to a running Match, and finds one of them by a changed copy of it.

`make demo` runs this against the stack of `make dev`, at its MATCH_API_HOST and PORT; `--url` names another one. Where
the API asks for a key, `KEY` in the environment is it.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import requests
from PIL import Image, ImageOps

EXAMPLES = Path(__file__).resolve().parent
ORIGINAL = "coffee.jpg"
# A stack that is being started answers within these; then the person is told what is missing.
ANSWER_WITHIN_S = 5
READY_WITHIN_S = 30
LOOK_EVERY_S = 0.5
STORE_WITHIN_S = 30
# Above the server's own limits, so that it is the server that says what is wrong.
TIMEOUT_S = STORE_WITHIN_S + 30


class DemoError(Exception):
    """The demo cannot go on; the text says in one line why, and what to do."""


class Match:
    """A running Match; `key` is an API key with the scopes read and write, where it asks for one."""

    def __init__(self, url: str, *, key: str | None) -> None:
        self.url = url.rstrip("/")
        self.has_key = bool(key)
        self._session = requests.Session()
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"
        # A proxy of the environment is not meant for a service on this machine.
        self._session.trust_env = False

    def wait_until_ready(self) -> None:
        """Return when searches are served."""
        start = monotonic()
        while (response := self._readiness()) is None or not response.ok:
            waited = monotonic() - start
            if response is None and waited > ANSWER_WITHIN_S:
                raise DemoError(f"nothing answers at {self.url}: run `make dev` in another terminal")
            if response is not None and waited > READY_WITHIN_S:
                raise DemoError(f"{self.url} is not ready: {_errors(response)}")
            sleep(LOOK_EVERY_S)

    def add(self, path: Path, filepath: str, metadata: Mapping[str, str]) -> None:
        """Return when the picture is stored and a search finds it."""
        fields = {"filepath": filepath, "metadata": json.dumps(metadata), "wait": str(STORE_WITHIN_S)}
        response = self._post("add", path.read_bytes(), fields)
        if response.status_code != requests.codes.ok:
            raise DemoError(f"{filepath} is not stored yet after {STORE_WITHIN_S} s: does a worker run?")

    def search(self, image: bytes) -> list[dict[str, Any]]:
        """Return the pictures that look like `image`, best first."""
        matches: list[dict[str, Any]] = self._post("search", image, {"all_orientations": "true"}).json()["result"]
        return matches

    def _readiness(self) -> requests.Response | None:
        try:
            return self._session.get(f"{self.url}/readyz", timeout=TIMEOUT_S)
        except requests.RequestException:
            return None

    def _post(self, endpoint: str, image: bytes, fields: Mapping[str, str]) -> requests.Response:
        try:
            response = self._session.post(
                f"{self.url}/{endpoint}", data=fields, files={"image": image}, timeout=TIMEOUT_S
            )
        except requests.RequestException as error:
            raise DemoError(f"{self.url}/{endpoint} gave no answer: {error}") from error
        if response.status_code == requests.codes.unauthorized and not self.has_key:
            raise DemoError(f"{self.url} asks for an API key, one with the scopes read and write: KEY=… make demo")
        if not response.ok:
            raise DemoError(f"/{endpoint} answered {response.status_code}: {_errors(response)}")
        return response


def _errors(response: requests.Response) -> str:
    try:
        return "; ".join(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "no reply that Match would give"


def changed_copy(original: Path) -> bytes:
    """Return the picture turned by 90°, shrunk to a third, mirrored, as a JPEG of quality 30."""
    with Image.open(original) as image:
        turned = image.transpose(Image.Transpose.ROTATE_90)
    small = turned.resize((turned.width // 3, turned.height // 3), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    ImageOps.mirror(small).save(buffer, "JPEG", quality=30)
    return buffer.getvalue()


def add_all(match: Match) -> None:
    """Add every example picture under `examples/<name>`."""
    pictures: dict[str, dict[str, str]] = json.loads((EXAMPLES / "pictures.json").read_text("utf-8"))
    print(f"adding {len(pictures)} pictures to {match.url}")
    for name, metadata in pictures.items():
        match.add(EXAMPLES / "images" / name, f"examples/{name}", metadata)
        print(f"  examples/{name}  {metadata['title']} ({metadata['author']}, {metadata['licence']})")


def keep(image: bytes, home: Path) -> Path:
    """Write the copy where the user can look at it."""
    path = home / "demo" / f"changed-{ORIGINAL}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    except OSError as error:
        raise DemoError(f"MATCH_HOME {home} cannot be used as a folder: {error.strerror}") from error
    return path


def show(matches: Sequence[Mapping[str, Any]]) -> None:
    """Print the matches as a table."""
    print(f"\n{'score':>7}  {'filepath':<32}orientation")
    for match in matches:
        orientation = match["orientation"]
        text = orientation if isinstance(orientation, str) else json.dumps(orientation)
        print(f"{match['score']:7.2f}  {match['filepath']:<32}{text}")


def by_hand(match: Match, path: Path) -> str:
    """Return the command that searches for the picture; the key is named, not shown."""
    key = '-H "Authorization: Bearer $KEY" ' if match.has_key else ""
    return f"curl {key}-F {shlex.quote(f'image=@{path}')} -F all_orientations=true {match.url}/search"


def default_url(environ: Mapping[str, str]) -> str:
    """Return where the stack of `make dev` is with these settings, as this machine reaches it."""
    host = environ.get("MATCH_API_HOST") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - told apart, not listened on
    return f"http://{f'[{host}]' if ':' in host else host}:{environ.get('PORT') or 8888}"


def run(match: Match, home: Path) -> bool:
    """Add, change, search; return whether the search found the original."""
    match.wait_until_ready()
    add_all(match)
    copy = changed_copy(EXAMPLES / "images" / ORIGINAL)
    path = keep(copy, home)
    print(f"\nsearching for {path}\n  {ORIGINAL} turned by 90°, shrunk to a third, mirrored, JPEG quality 30")
    matches = match.search(copy)
    show(matches)
    print(f"\nThe same by hand:\n  {by_hand(match, path)}")
    return f"examples/{ORIGINAL}" in {found["filepath"] for found in matches}


def main(arguments: Sequence[str]) -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=default_url(os.environ), help="address of the API (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        found = run(Match(options.url, key=os.environ.get("KEY")), Path(os.environ.get("MATCH_HOME") or ".match"))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if not found:
        print(f"demo: the search did not find examples/{ORIGINAL}", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
