"""The stack that `make dev` runs, and a web server with images."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from dev.ports import free_port
from support.http_servers import Handler, LocalServer, serving
from support.images import encode
from support.match_command import MatchCommand

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "images"
READY_WITHIN_S = 180
STOP_WITHIN_S = 180


class Stack:
    """A running `make dev`, and requests to it."""

    def __init__(self, process: subprocess.Popen[str], url: str, home: Path) -> None:
        self.process = process
        self.url = url
        self.home = home
        # The lines that it printed until it was ready.
        self.output: list[str] = []

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=60, **options)

    def ok(self, method: str, path: str, **options: Any) -> list[Any]:
        """Return the result of a call that must succeed."""
        response = self.call(method, path, **options)
        body = response.json()
        assert (response.status_code, body["status"]) == (200, "ok"), body
        result: list[Any] = body["result"]
        return result

    def add(self, filepath: str, data: bytes, **fields: str) -> None:
        self.ok("POST", "/add", data={"filepath": filepath, "wait": "30", **fields}, files={"image": data})

    def search(self, data: bytes, **fields: str) -> list[dict[str, Any]]:
        return self.ok("POST", "/search", data=fields, files={"image": data})

    def delete_all(self) -> None:
        for filepath in self.ok("GET", "/list", params={"limit": "10000"}):
            self.ok("DELETE", "/delete", data={"filepath": filepath})

    def stop(self) -> int:
        """Stop it as Ctrl-C does, and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_WITHIN_S)


@pytest.fixture(scope="session")
def start_stack() -> Iterator[Callable[..., Stack]]:
    started: list[Stack] = []

    def start(home: Path, **environment: str) -> Stack:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.stack"],
            cwd=ROOT,
            env=clean_environment()
            | {"PORT": str(port), "FLOWER_PORT": str(free_port()), "MATCH_HOME": str(home)}
            | {"MATCH_WORKER_METRICS_PORT": str(free_port())}
            | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack = Stack(process, f"http://{environment.get('MATCH_API_HOST', '127.0.0.1')}:{port}", home)
        started.append(stack)
        wait_until_ready(stack)
        return stack

    yield start
    for stack in started:
        stack.stop()
        if stack.process.stdout:
            stack.process.stdout.close()


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings that choose another store or Redis."""
    prefixes = ("MATCH_", "ELASTICSEARCH_", "REDIS_URL", "PORT", "WORKER_COUNT")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def wait_until_ready(stack: Stack) -> None:
    for line in stack.process.stdout or ():
        stack.output.append(line)
        if line.strip() == "ready":
            return
    logs = "".join(path.read_text() for path in sorted((stack.home / "logs").glob("*.log")))
    pytest.fail(f"the stack did not get ready:\n{''.join(stack.output)}\n{logs}")


@pytest.fixture(scope="session")
def shared_stack(
    start_stack: Callable[..., Stack], image_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    allowed = image_server.removeprefix("http://")
    return start_stack(tmp_path_factory.mktemp("home"), MATCH_FETCH_ALLOW=allowed, MATCH_FETCH_TIMEOUT_S="30")


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """An empty collection."""
    shared_stack.delete_all()
    return shared_stack


@pytest.fixture(scope="session")
def elastic_stack(start_on: Callable[[str], Stack], elasticsearch_url: str) -> Stack:
    return start_on(elasticsearch_url)


@pytest.fixture(scope="session")
def opensearch_stack(start_on: Callable[[str], Stack], opensearch_url: str) -> Stack:
    return start_on(opensearch_url)


@pytest.fixture(scope="session")
def start_on(
    start_stack: Callable[..., Stack], image_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Stack]:
    """Return a function that starts a stack on the index server at a URL."""
    return lambda url: start_stack(
        tmp_path_factory.mktemp("stack"),
        ELASTICSEARCH_URL=url,
        ELASTICSEARCH_INDEX=f"e2e-{uuid.uuid4().hex[:12]}",
        ELASTICSEARCH_DOC_TYPE="images",
        MATCH_FETCH_ALLOW=image_server.removeprefix("http://"),
    )


class ExampleImages(Handler, SimpleHTTPRequestHandler):
    """Serves the example images and an image without features, and redirects `/to/URL` to the URL."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        if self.path.startswith("/to/"):
            self.reply(302, headers={"Location": self.path.removeprefix("/to/")})
        elif self.path == "/plain.png":
            self.reply(body=encode(Image.new("L", (64, 64), 200)))
        else:
            SimpleHTTPRequestHandler.do_GET(self)


@pytest.fixture(scope="session")
def image_server() -> Iterator[str]:
    with serving(LocalServer(partial(ExampleImages, directory=str(EXAMPLES)))) as server:
        yield server.url


@pytest.fixture(scope="session")
def photographs() -> dict[str, bytes]:
    """The example images by name."""
    return {path.name: path.read_bytes() for path in sorted(EXAMPLES.glob("*.jpg"))}


@pytest.fixture
def match(stack: Any, tmp_path: Path, photographs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> MatchCommand:
    """The command line, with four example images in the home and in the working folder."""
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home / "Photos", work):
        folder.mkdir(parents=True)
        for name in ("chelsea.jpg", "coffee.jpg", "moose.jpg", "rocket.jpg"):
            (folder / name).write_bytes(photographs[name])
    with Image.open(work / "coffee.jpg") as image:
        width, height = image.size
        image.crop((8, 8, width - 8, height - 8)).save(work / "cropped.jpg")
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    return MatchCommand(home, stack.url)
