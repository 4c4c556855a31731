"""Chromium for the tests of the web page, and a server for it."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from flask import Flask
from playwright.sync_api import Browser, Page, sync_playwright
from werkzeug.serving import make_server

# Without its sandbox Chromium also runs as root; it opens only pages of the tests.
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"]
AXE = Path(__file__).parent / "axe" / "axe.min.js"
# A busy machine must not fail a test.
WITHIN_MS = 60_000


@contextmanager
def chromium(give_up: Callable[[str], NoReturn], *flags: str) -> Iterator[Browser]:
    """Run the system's Chromium until the end of the `with`; playwright's own browsers are not used."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        give_up("no Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS, *flags])
        yield browser
        browser.close()


def choose(page: Page, data: bytes) -> None:
    """Choose an image in the form of the search page."""
    page.set_input_files("[data-search] [name=image]", {"name": "cat.png", "mimeType": "image/png", "buffer": data})


def drop(page: Page, *files: Path) -> None:
    """Drag files and folders from the desktop into the middle of the page, and drop them."""
    session = page.context.new_cdp_session(page)
    size = page.viewport_size or {"width": 800, "height": 600}
    dragged = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": size["width"] / 2, "y": size["height"] / 2}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": dragged, **at})
    session.detach()


def accessibility_violations(page: Page) -> list[str]:
    """Return what axe reports of an open page: rule and element. The page's profile must bypass the policy."""
    page.evaluate(AXE.read_text())
    # The rule of WCAG 2.2, which axe leaves out by default.
    options = "{ resultTypes: ['violations'], rules: { 'target-size': { enabled: true } } }"
    results = page.evaluate(f"axe.run(document, {options})")
    return [f"{each['id']}: {node['html']}" for each in results["violations"] for node in each["nodes"]]


@contextmanager
def serving_app(app: Flask) -> Iterator[str]:
    """Serve the app on loopback until the end of the `with`; yield its origin."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def opened(browser: Browser, origin: str, **options: Any) -> Iterator[Page]:
    """Open a page in a profile of its own; at the end no policy was violated, and no script failed."""
    context = browser.new_context(base_url=origin, **options)
    context.set_default_timeout(WITHIN_MS)
    page = context.new_page()
    problems: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: hosts.add("/".join(request.url.split("/")[:3])))
    yield page
    context.close()
    assert problems == []
    assert {host for host in hosts if not host.startswith("blob:")} <= {origin}
