"""Pages of other sites against an API without keys, by header and in Chromium."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser
from redis import Redis

from api.access.keys import Keyring, Scope
from api.new_key import table
from common.config import Settings
from support.browsers import chromium, serving_app
from support.http_servers import Handler, LocalServer, serving
from support.waiting import wait_until

OTHER_SITES: list[Mapping[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    {"Origin": "https://other.example.org"},
    {"Origin": "null"},
    {"Origin": "http://[::1"},
]
OWN_SITE: list[Mapping[str, str]] = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://localhost:8888"},
]
GUARDED = [("GET", "/list"), ("POST", "/count"), ("POST", "/search"), ("POST", "/add"), ("DELETE", "/delete")]
GUARDED += [("GET", "/images"), ("GET", "/tasks"), ("POST", "/web/search"), ("GET", "/web/collection")]
OPEN = ["/ping", "/livez", "/readyz", "/openapi.json", "/docs"]
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}


@pytest.mark.parametrize("headers", OTHER_SITES)
@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_request_of_another_site_is_rejected(
    client: FlaskClient, method: str, path: str, headers: Mapping[str, str]
) -> None:
    reply = client.open(path, method=method, headers=headers)

    assert (reply.status_code, "another site" in reply.text) == (403, True)


@pytest.mark.parametrize("headers", OWN_SITE)
@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_request_of_its_own_pages_is_served(
    client: FlaskClient, method: str, path: str, headers: Mapping[str, str]
) -> None:
    assert client.open(path, method=method, headers=headers).status_code != 403


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_documentation_are_open(client: FlaskClient, path: str) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Host": "match.rebound.example"}

    assert client.get(path, headers=headers).status_code == 200


def test_link_opens_a_page_but_no_data(client: FlaskClient) -> None:
    assert client.get("/", headers=LINK).status_code == 200
    assert client.get("/list", headers=LINK).status_code == 403
    assert client.post("/web/search", headers=LINK).status_code == 403


def test_page_of_an_allowed_origin_is_served(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    client = make_client(real_redis, settings=Settings(cors_origins=("https://app.example.org",)))
    headers = {"Origin": "https://app.example.org", "Sec-Fetch-Site": "cross-site"}

    assert client.get("/count", headers=headers).status_code == 200
    assert client.get("/count", headers=headers | {"Origin": "https://b.example.org"}).status_code == 403


def test_valid_key_is_accepted_from_any_site(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(table("reader", [Scope.READ], "the key"))
    client = make_client(real_redis, keyring=Keyring(file))
    headers = {"Sec-Fetch-Site": "cross-site", "Host": "match.example.org"}

    assert client.get("/count", headers=headers | {"Authorization": "Bearer the key"}).status_code == 200
    assert client.get("/count", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("settings", "host", "expected"),
    [
        (Settings(), "localhost:8888", 200),
        (Settings(), "LOCALHOST", 200),
        (Settings(), "127.0.0.2:8888", 200),
        (Settings(), "[::1]:8888", 200),
        (Settings(), "match.rebound.example:8888", 403),
        (Settings(), "localhost.rebound.example", 403),
        (Settings(api_host="0.0.0.0"), "match.example.org", 200),  # noqa: S104 - not bound
        (Settings(trusted_proxies=1), "match.example.org", 200),
        (Settings(trusted_proxies=1, allowed_hosts=("match.lan",)), "match.lan", 200),
        (Settings(trusted_proxies=1, allowed_hosts=("match.lan",)), "match.rebound.example", 403),
    ],
)
def test_host_names_of_others_are_rejected(
    make_client: Callable[..., FlaskClient], real_redis: Redis, settings: Settings, host: str, expected: int
) -> None:
    client = make_client(real_redis, settings=settings)

    assert client.get("/count", headers={"Host": host}).status_code == expected
    assert client.get("/", headers={"Host": host, **LINK}).status_code == expected


class Evil(Handler):
    """A page of another site; a script of it is the query."""

    def answer(self) -> None:
        self.reply(body=b"<!doctype html><form method=post></form>", headers={"Content-Type": "text/html"})


@pytest.fixture(scope="module")
def browser(give_up: Callable[[str], NoReturn]) -> Iterator[Browser]:
    with chromium(give_up, "--host-resolver-rules=MAP *.rebound.example 127.0.0.1") as browser:
        yield browser


class Statuses:
    """Middleware that keeps the statuses of the replies to requests for data."""

    def __init__(self, app: Flask) -> None:
        self._serve = app.wsgi_app
        self.seen: list[int] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        def start(status: str, *rest: Any) -> Any:
            if environ["PATH_INFO"] in {"/count", "/list"}:
                self.seen.append(int(status.split(maxsplit=1)[0]))
            return start_response(status, *rest)

        return self._serve(environ, start)


def test_no_site_uses_the_api_through_a_browser(client: FlaskClient, browser: Browser) -> None:
    app = client.application
    app.wsgi_app = statuses = Statuses(app)  # type: ignore[method-assign]
    with serving_app(app) as origin, serving(LocalServer(Evil)) as evil:
        form = f"const f = document.forms[0]; f.action = '{origin}/count'; f.submit()"
        fetch = f"fetch('{origin}/count', {{method: 'POST', mode: 'no-cors'}}).catch(() => null)"
        localhost = evil.url.replace("127.0.0.1", "localhost")
        rebound = origin.replace("127.0.0.1", "match.rebound.example")

        for page, script in [(page, script) for page in (evil.url, localhost) for script in (form, fetch)]:
            with closing(browser.new_context()) as context:
                opened = context.new_page()
                opened.goto(page)
                before = len(statuses.seen)
                opened.evaluate(script)
                wait_until(lambda before=before: len(statuses.seen) > before)  # type: ignore[misc]
        with closing(browser.new_context()) as context:
            # As a script of the rebound name would: for the browser both are the page's own site.
            context.new_page().goto(f"{rebound}/list")
            context.new_page().goto(f"{origin}/list")

    assert statuses.seen == [403] * 5 + [200]
