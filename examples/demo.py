"""Add the example images to a running Match, and find two of them by a modified copy and by a screenshot.

`make demo` runs this against the stack of `make dev`, at its MATCH_API_HOST and PORT; `--url` names another API. The
environment variable KEY is the API key, if one is required.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import requests
from PIL import Image, ImageDraw, ImageOps

EXAMPLES = Path(__file__).resolve().parent
# Limits for a stack that is starting.
ANSWER_WITHIN_S = 5
READY_WITHIN_S = 30
CHECK_INTERVAL_S = 0.5
STORE_WITHIN_S = 30
# Longer than the server's own limits, whose error messages are more exact.
TIMEOUT_S = STORE_WITHIN_S + 30


class DemoError(Exception):
    """The demo cannot continue; the message has the reason and the remedy in one line."""


class Match:
    """A client of a running Match; `key` is an API key with the scopes read and write, if one is required."""

    def __init__(self, url: str, *, key: str | None) -> None:
        self.url = url.rstrip("/")
        self.has_key = bool(key)
        self._session = requests.Session()
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"
        # Proxies of the environment are not for a service on this machine.
        self._session.trust_env = False

    def wait_until_ready(self) -> None:
        """Wait until searches are served."""
        start = monotonic()
        while (response := self._readiness()) is None or not response.ok:
            waited = monotonic() - start
            if response is None and waited > ANSWER_WITHIN_S:
                raise DemoError(f"no answer from {self.url}: run `make dev` in another terminal")
            if response is not None and waited > READY_WITHIN_S:
                raise DemoError(f"{self.url} is not ready: {_errors(response)}")
            sleep(CHECK_INTERVAL_S)

    def add(self, path: Path, filepath: str, metadata: Mapping[str, str]) -> None:
        """Add an image, and wait until searches find it."""
        fields = {"filepath": filepath, "metadata": json.dumps(metadata), "wait": str(STORE_WITHIN_S)}
        response = self._post("add", path.read_bytes(), fields)
        if response.status_code != requests.codes.ok:
            raise DemoError(f"{filepath} was not stored within {STORE_WITHIN_S} s: is a worker running?")

    def search(self, image: bytes) -> list[dict[str, Any]]:
        """Return the stored images that are similar to `image`, best match first."""
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
            raise DemoError(f"{self.url}/{endpoint} did not answer: {error}") from error
        if response.status_code == requests.codes.unauthorized and not self.has_key:
            raise DemoError(f"{self.url} requires an API key with the scopes read and write: KEY=… make demo")
        if not response.ok:
            raise DemoError(f"/{endpoint} answered {response.status_code}: {_errors(response)}")
        return response


def _errors(response: requests.Response) -> str:
    try:
        return "; ".join(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "the reply is not from Match"


def modified_copy(image: Image.Image) -> Image.Image:
    """Return the image rotated by 90°, scaled to a third and mirrored."""
    rotated = image.transpose(Image.Transpose.ROTATE_90)
    return ImageOps.mirror(rotated.resize((rotated.width // 3, rotated.height // 3), Image.Resampling.LANCZOS))


def screenshot(image: Image.Image) -> Image.Image:
    """Return a phone's screenshot of the image, cropped and with a caption below."""
    part = image.crop((image.width // 10, image.height // 20, image.width * 9 // 10, image.height * 9 // 10))
    shown = part.resize((540, 540 * part.height // part.width), Image.Resampling.LANCZOS)
    screen = Image.new("RGB", (540, 1170), "#101418")
    screen.paste(shown, (0, 180))
    screen.paste("white", (0, 180 + shown.height, 540, 280 + shown.height))
    draw = ImageDraw.Draw(screen)
    draw.text((24, 208 + shown.height), "when it is Monday again", "black", font_size=36)
    draw.text((24, 24), "12:04", "white", font_size=24)
    draw.text((24, 100), "somebody", "white", font_size=36)
    draw.text((24, 320 + shown.height), "128 likes", "#c0c8d0", font_size=30)
    return screen


@dataclass(frozen=True, slots=True)
class Copy:
    """A file named `name`, made of an original for a search; `description` is about the changes of `edit`."""

    original: str
    name: str
    description: str
    edit: Callable[[Image.Image], Image.Image]
    quality: int

    def encode(self) -> bytes:
        """Return the JPEG file."""
        buffer = BytesIO()
        with Image.open(EXAMPLES / "images" / self.original) as image:
            self.edit(image.convert("RGB")).save(buffer, "JPEG", quality=self.quality)
        return buffer.getvalue()


COPIES = (
    Copy("coffee.jpg", "modified-coffee.jpg", "rotated by 90°, scaled to a third, mirrored", modified_copy, quality=30),
    Copy(
        "chelsea.jpg", "screenshot-chelsea.jpg", "cropped, with a caption, on a phone's screen", screenshot, quality=80
    ),
)


def add_all(match: Match) -> None:
    """Add every example image under the filepath `examples/<name>`."""
    images: dict[str, dict[str, str]] = json.loads((EXAMPLES / "images.json").read_text("utf-8"))
    print(f"adding {len(images)} images to {match.url}")
    for name, metadata in images.items():
        match.add(EXAMPLES / "images" / name, f"examples/{name}", metadata)
        print(f"  examples/{name}  {metadata['title']} ({metadata['author']}, {metadata['licence']})")


def keep(image: bytes, home: Path, name: str) -> Path:
    """Write the copy to a file that the user can open."""
    path = home / "demo" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    except OSError as error:
        raise DemoError(f"MATCH_HOME {home} is not a usable folder: {error.strerror}") from error
    return path


def show(matches: Sequence[Mapping[str, Any]]) -> None:
    """Print the matches as a table."""
    print(f"\n{'score':>7}  {'filepath':<32}{'matched by':<16}orientation")
    for match in matches:
        orientation = match["orientation"]
        text = orientation if isinstance(orientation, str) else json.dumps(orientation)
        print(f"{match['score']:7.2f}  {match['filepath']:<32}{match['matched_by']:<16}{text}")


def curl_command(match: Match, path: Path) -> str:
    """Return a curl command for the same search; it names the key's variable, not the key."""
    key = '-H "Authorization: Bearer $KEY" ' if match.has_key else ""
    return f"curl {key}-F {shlex.quote(f'image=@{path}')} -F all_orientations=true {match.url}/search"


def default_url(environ: Mapping[str, str]) -> str:
    """Return the API's URL on this machine, for `make dev` with these environment variables."""
    host = environ.get("MATCH_API_HOST") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not listened on
    return f"http://{f'[{host}]' if ':' in host else host}:{environ.get('PORT') or 8888}"


def run(match: Match, home: Path) -> list[str]:
    """Add the images, search for the copies, and return the originals that were not found first."""
    match.wait_until_ready()
    add_all(match)
    return [copy.original for copy in COPIES if not find(match, copy, home)]


def find(match: Match, copy: Copy, home: Path) -> bool:
    """Search for a copy, print the matches, and return whether its original is the first."""
    image = copy.encode()
    path = keep(image, home, copy.name)
    print(f"\nsearching for {path}\n  {copy.original} {copy.description}, JPEG quality {copy.quality}")
    matches = match.search(image)
    show(matches)
    print(f"\nThe same with curl:\n  {curl_command(match, path)}")
    return [result["filepath"] for result in matches[:1]] == [f"examples/{copy.original}"]


def main(arguments: Sequence[str]) -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=default_url(os.environ), help="address of the API (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        missed = run(Match(options.url, key=os.environ.get("KEY")), Path(os.environ.get("MATCH_HOME") or ".match"))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    for name in missed:
        print(f"demo: the search did not find examples/{name} first", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
