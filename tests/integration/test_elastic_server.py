"""Servers that Match does not support, credentials and TLS, against small servers in the role of Elasticsearch."""

import base64
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from common.errors import StoreError, StoreUnavailable
from common.store.base import Tombstone, Verdict
from common.store.elastic import ElasticStore
from support.certificates import self_signed
from support.http_servers import Handler, LocalServer, serving

PRODUCT = {"X-Elastic-Product": "Elasticsearch"}
ELASTIC_9 = {"version": {"number": "9.1.0", "build_flavor": "default"}, "tagline": "You Know, for Search"}
ELASTIC_8 = {"version": {"number": "8.14.3", "build_flavor": "default"}, "tagline": "You Know, for Search"}
ELASTIC_7 = {"version": {"number": "7.10.2", "build_flavor": "oss"}, "tagline": "You Know, for Search"}
OPENSEARCH = {"version": {"distribution": "opensearch", "number": "2.19.1"}, "tagline": "The OpenSearch Project"}
# OpenSearch can be configured to report a version number of Elasticsearch, for old clients.
OPENSEARCH_POSING = {"version": {"distribution": "opensearch", "number": "7.10.2"}}


class Pretender(LocalServer):
    """Answers GET / with `root`, and other requests as an empty cluster or as a server too old for the client."""

    def __init__(self, root: Any, headers: dict[str, str]) -> None:
        super().__init__(_Handler)
        self.root = root
        self.headers = headers
        self.requests: list[tuple[str, str, str | None]] = []


class _Handler(Handler):
    server: Pretender

    def answer(self) -> None:
        self.server.requests.append((self.command, self.path, self.headers["Authorization"]))
        if self.path == "/":
            self._answer(200, self.server.root)
        elif "compatible-with" in self.headers["Accept"] and self.server.root != ELASTIC_9:
            self._answer(406, {"error": "Content-Type header [application/vnd.elasticsearch+json] is not supported"})
        else:
            self._answer(200, {})

    def _answer(self, status: int, body: Any) -> None:
        self.body()
        page = isinstance(body, str)
        content = body if page else json.dumps(body)
        kind = {"Content-Type": "text/html" if page else "application/json"}
        self.reply(status, content.encode(), kind | self.server.headers)


@pytest.fixture
def pretend() -> Iterator[Callable[..., Pretender]]:
    running = ExitStack()

    def pretend(root: Any, headers: dict[str, str] | None = None, *, certificate: Path | None = None) -> Pretender:
        server = Pretender(root, headers or {})
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        return running.enter_context(serving(server))

    with running:
        yield pretend


@pytest.fixture
def connect() -> Iterator[Callable[..., ElasticStore]]:
    stores: list[ElasticStore] = []

    def connect(url: str, **options: Any) -> ElasticStore:
        stores.append(ElasticStore(url, index="images", timeout_s=5, **options))
        return stores[-1]

    yield connect
    for store in stores:
        store.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path, "127.0.0.1", "IP:127.0.0.1")


@pytest.mark.parametrize(
    ("root", "headers", "message"),
    [
        (OPENSEARCH, {}, "the server is opensearch 2.19.1: Match needs Elasticsearch 9 or later"),
        (OPENSEARCH_POSING, {}, "the server is opensearch 7.10.2: Match needs Elasticsearch 9 or later"),
        (ELASTIC_7, {}, "Elasticsearch 7.10.2 is too old: Match needs 9 or later"),
        (ELASTIC_8, PRODUCT, "Elasticsearch 8.14.3 is too old: Match needs 9 or later"),
        ("<html>It works!</html>", {}, "the server is not Elasticsearch"),
        ({"couchdb": "Welcome", "version": "3.3.3"}, {}, "the server is not Elasticsearch"),
        (["?"], {}, "the server is not Elasticsearch"),
    ],
    ids=["opensearch", "opensearch posing", "7", "8", "html", "couchdb", "list"],
)
def test_unsupported_server_is_reported_and_receives_no_data(
    pretend: Callable[..., Pretender],
    connect: Callable[..., ElasticStore],
    root: Any,
    headers: dict[str, str],
    message: str,
) -> None:
    server = pretend(root, headers)
    store = connect(server.url)

    with pytest.raises(StoreError) as raised:
        store.prepare()
    (written,) = store.put([Tombstone(filepath="cat.jpg", seq=1, added=1)])

    assert not isinstance(raised.value, StoreUnavailable)
    assert (str(raised.value), store.health().detail, written.reason) == (message, message, message)
    assert written.verdict is Verdict.RETRY
    assert {(method, path) for method, path, _ in server.requests} == {("GET", "/")}


def test_missing_index_is_reported_as_missing(
    pretend: Callable[..., Pretender], connect: Callable[..., ElasticStore]
) -> None:
    store = connect(pretend(ELASTIC_9, PRODUCT).url)

    assert store.health().detail == "Elasticsearch: index images does not exist yet"


@pytest.mark.parametrize(
    ("login", "options", "sent"),
    [
        ("me:s%40fe@", {}, "Basic " + base64.b64encode(b"me:s@fe").decode()),
        ("", {"api_key": "aWQ6a2V5"}, "ApiKey aWQ6a2V5"),
        ("", {}, None),
    ],
    ids=["user and password", "API key", "nothing"],
)
def test_credentials_are_sent_with_every_request(
    pretend: Callable[..., Pretender],
    connect: Callable[..., ElasticStore],
    login: str,
    options: dict[str, str],
    sent: str | None,
) -> None:
    server = pretend(ELASTIC_9, PRODUCT)

    connect(server.url.replace("//", f"//{login}"), **options).health()

    assert {authorization for *_, authorization in server.requests} == {sent}
    assert len(server.requests) > 1


def test_https_is_checked_against_the_ca_file(
    pretend: Callable[..., Pretender], connect: Callable[..., ElasticStore], certificate: Path
) -> None:
    url = pretend(ELASTIC_9, PRODUCT, certificate=certificate).url.replace("http://", "https://")
    ca_file = certificate.with_suffix(".crt")

    trusted, untrusted = connect(url, ca_file=ca_file).health(), connect(url).health()

    assert trusted.detail == "Elasticsearch: index images does not exist yet"
    assert "certificate verify failed" in untrusted.detail
