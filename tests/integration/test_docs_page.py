"""The page at /docs in a real browser: its operations, its requests and its content security policy."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.serving import make_server

from api.access.keys import Keyring, Scope
from api.new_key import table
from common.config import Settings
from support.waiting import wait_until

KEY = "the key to all"


class Browser:
    """Headless Chromium, driven by the DevTools protocol over a pipe; `events` are the events of the open page."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, replies = os.pipe(), os.pipe()
        # The protocol's file descriptors are 3 and 4.
        line = f'exec "$@" 3<&{commands[0]} 4>&{replies[1]}'
        flags = ["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"]
        flags += ["--no-sandbox"] * (os.geteuid() == 0)
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", line, "bash", program, *flags, f"--user-data-dir={profile}"],
            pass_fds=(commands[0], replies[1]),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands[0])
        os.close(replies[1])
        self._commands, self._replies = os.fdopen(commands[1], "wb", buffering=0), os.fdopen(replies[0], "rb")
        self._received = b""
        self._sent = 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        self._commands.close()
        self._replies.close()
        self._process.terminate()
        self._process.wait()

    def call(self, method: str, **params: object) -> dict[str, Any]:
        self._sent += 1
        command = {"id": self._sent, "method": method, "params": params, **self._session}
        self._commands.write(json.dumps(command).encode() + b"\0")
        while (message := self._receive()).get("id") != self._sent:
            self.events.append(message)
        assert "error" not in message, message
        return dict(message["result"])

    def open(self, url: str) -> None:
        self._session, self.events = {}, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "Audits", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str) -> Any:
        return wait_until(lambda: self.run(script), script)

    def click(self, selector: str) -> None:
        self.wait_for(f"document.querySelector({json.dumps(selector)}) !== null")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        self.wait_for(f"document.querySelector({json.dumps(selector)}) !== null")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)
        # The page reads a field after a pause, or when the field loses the focus.
        self.run("document.activeElement.blur()")

    def violations(self) -> list[Any]:
        issues = [event["params"]["issue"] for event in self._named("Audits.issueAdded")]
        return [issue for issue in issues if issue["code"] == "ContentSecurityPolicyIssue"]

    def errors(self) -> list[Any]:
        return self._named("Runtime.exceptionThrown")

    def requests(self) -> list[dict[str, Any]]:
        return [event["params"]["request"] for event in self._named("Network.requestWillBeSent")]

    def _named(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("method") == method]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            data = self._replies.read1()
            assert data, "the browser has ended"
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))


@pytest.fixture(scope="module")
def browser(give_up: Callable[[str], NoReturn], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        give_up("no Chromium (Debian: apt-get install chromium)")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path) -> FlaskClient:
    file = tmp_path / "keys.toml"
    file.write_text(table("all", [*Scope], KEY))
    return make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))


@pytest.fixture
def origin(client: FlaskClient) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def page(browser: Browser, origin: str) -> Browser:
    browser.open(f"{origin}/docs")
    browser.wait_for("document.querySelector('.opblock') !== null")
    return browser


def authorize(page: Browser) -> None:
    page.click(".auth-wrapper .authorize")
    page.type(".auth-container input", KEY)
    page.click(".auth-container button.authorize")
    page.click(".auth-container button.btn-done")


def execute(page: Browser, operation: str) -> tuple[int, Any]:
    """Send the operation's request and return the status and body that the page shows."""
    page.click(f"#{operation} button.execute")
    shown = f"document.querySelector('#{operation} .live-responses-table .response')"
    status = page.wait_for(f"{shown}?.querySelector('.response-col_status').innerText")
    body = page.wait_for(f"{shown}.querySelector('.response-col_description pre').innerText")
    return int(status.split()[0]), json.loads(body)


def test_page_shows_every_operation(page: Browser, client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    operations = [(path, method) for path, methods in document["paths"].items() for method in methods]

    shown = page.run(
        "[...document.querySelectorAll('.opblock-summary')].map(block => ["
        "block.querySelector('[data-path]').dataset.path,"
        "block.querySelector('.opblock-summary-method').innerText.toLowerCase()])"
    )

    assert sorted(map(tuple, shown)) == sorted(operations)
    assert page.errors() == []


def test_policy_blocks_an_inline_script(page: Browser) -> None:
    page.run("document.head.append(Object.assign(document.createElement('script'), {text: 'window.ran = true'}))")
    page.run("new Promise(resolve => setTimeout(resolve))")

    assert page.run("window.ran ?? false") is False
    assert len(page.violations()) == 1


def test_request_is_sent_with_the_readers_key(page: Browser, origin: str) -> None:
    authorize(page)
    page.click("#operations-Searching-search .opblock-summary-control")
    page.type("#operations-Searching-search [data-property-name=filepath] input", "nowhere.jpg")

    status, body = execute(page, "operations-Searching-search")

    assert (status, body["code"], body["field"]) == (404, "unknown_filepath", "filepath")
    assert page.requests()[-1]["headers"]["Authorization"] == f"Bearer {KEY}"
    assert {host(request["url"]) for request in page.requests()} == {origin, "data:"}
    assert page.violations() == []
    [sample, *_] = page.run(
        "[...document.querySelectorAll('#operations-Searching-search details pre')].map(pre => pre.textContent)"
    )
    assert sample.endswith(f"-F image=@chelsea.jpg -F limit=10 {origin}/search")


def host(url: str) -> str:
    """Return the origin of a URL, or `data:` for the icons in the style sheet."""
    return "data:" if url.startswith("data:image/svg+xml") else "/".join(url.split("/")[:3])


def test_files_are_revalidated_by_etag(client: FlaskClient) -> None:
    first = client.get("/docs/swagger-ui/swagger-ui-bundle.js")

    again = client.get("/docs/swagger-ui/swagger-ui-bundle.js", headers={"If-None-Match": first.headers["ETag"]})

    assert (first.status_code, first.mimetype, first.headers["Cache-Control"]) == (200, "text/javascript", "no-cache")
    assert (again.status_code, again.data) == (304, b"")
