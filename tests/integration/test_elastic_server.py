"""Products, versions, credentials and TLS, against small servers in the role of Elasticsearch and OpenSearch."""

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
from common.store.elastic import ElasticStore, Shape
from common.store.elastic.dialects import Dialect, ElasticsearchDialect, OpenSearchDialect
from support.certificates import self_signed
from support.http_servers import Handler, LocalServer, serving

PRODUCT = {"X-Elastic-Product": "Elasticsearch"}
ELASTIC_9 = {"version": {"number": "9.1.0", "build_flavor": "default"}, "tagline": "You Know, for Search"}
ELASTIC_8 = {"version": {"number": "8.14.3", "build_flavor": "default"}, "tagline": "You Know, for Search"}
ELASTIC_7 = {"version": {"number": "7.10.2", "build_flavor": "oss"}, "tagline": "You Know, for Search"}
OPENSEARCH = {"version": {"distribution": "opensearch", "number": "3.5.0"}, "tagline": "The OpenSearch Project"}
OPENSEARCH_2 = {"version": {"distribution": "opensearch", "number": "2.17.0"}}
# OpenSearch can be configured to report a version number of Elasticsearch, for old clients.
OPENSEARCH_POSING = {"version": {"distribution": "opensearch", "number": "7.10.2"}}
OTHER_FORK = {"version": {"distribution": "other", "number": "9.0.0"}}
NO_PLUGINS: list[dict[str, str]] = []


MISSING = "the index images does not exist yet"


def knn_plugin(version: str) -> list[dict[str, str]]:
    return [{"component": "opensearch-knn", "version": version}, {"component": "other", "version": "1.0.0.0"}]


class Pretender(LocalServer):
    """Answers GET / with `root`, and other requests as an empty cluster or as a server too old for the client.

    None as `root` or `plugins` is a request that the server forbids.
    """

    def __init__(self, root: Any, headers: dict[str, str], plugins: Any, indices: Any) -> None:
        super().__init__(_Handler)
        self.root = root
        self.headers = headers
        self.plugins = plugins
        self.indices = indices
        self.requests: list[tuple[str, str, str | None]] = []


class _Handler(Handler):
    server: Pretender

    def answer(self) -> None:
        self.server.requests.append((self.command, self.path, self.headers["Authorization"]))
        if self.path == "/":
            self._answer(200 if self.server.root else 403, self.server.root or {})
        elif self.path.startswith("/_cat/plugins"):
            self._answer(403 if self.server.plugins is None else 200, self.server.plugins)
        elif self.path.startswith("/images?"):
            self._answer(200, self.server.indices)
        elif self.server.root is None:
            self._answer(503, {"error": {"type": "busy", "reason": "busy"}})
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

    def pretend(
        root: Any,
        headers: dict[str, str] | None = None,
        *,
        plugins: Any = None,
        indices: Any = None,
        certificate: Path | None = None,
    ) -> Pretender:
        server = Pretender(root, headers or {}, plugins, indices or {})
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


NEITHER = "the server is neither Elasticsearch nor OpenSearch"
UNSUPPORTED = {
    "7": (ELASTIC_7, {}, None, "Elasticsearch 7.10.2 is too old: Match needs 9 or later"),
    "8": (ELASTIC_8, PRODUCT, None, "Elasticsearch 8.14.3 is too old: Match needs 9 or later"),
    "html": ("<html>It works!</html>", {}, None, NEITHER),
    "couchdb": ({"couchdb": "Welcome", "version": "3.3.3"}, {}, None, NEITHER),
    "list": (["?"], {}, None, NEITHER),
    "another fork": (OTHER_FORK, {}, None, "the server is other 9.0.0: Match needs Elasticsearch or OpenSearch"),
    "opensearch 2": (OPENSEARCH_2, {}, None, "OpenSearch 2.17.0 is too old: Match needs 2.19 or later"),
    "opensearch posing": (
        OPENSEARCH_POSING,
        {},
        knn_plugin("2.17.0.0"),
        "OpenSearch 2.17.0 is too old: Match needs 2.19 or later",
    ),
    "no plugin": (OPENSEARCH, {}, NO_PLUGINS, "OpenSearch 3.5.0 has no k-NN plugin, which Match needs"),
}


@pytest.mark.parametrize(("root", "headers", "plugins", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_server_is_reported_and_receives_no_data(
    pretend: Callable[..., Pretender],
    connect: Callable[..., ElasticStore],
    root: Any,
    headers: dict[str, str],
    plugins: Any,
    message: str,
) -> None:
    server = pretend(root, headers, plugins=plugins)
    store = connect(server.url)

    with pytest.raises(StoreError) as raised:
        store.prepare()
    (written,) = store.put([Tombstone(filepath="cat.jpg", seq=1, added=1)])

    assert not isinstance(raised.value, StoreUnavailable)
    assert (str(raised.value), store.health().detail, written.reason) == (message, message, message)
    assert written.verdict is Verdict.RETRY
    assert {(method, path.partition("?")[0]) for method, path, _ in server.requests} <= {
        ("GET", "/"),
        ("GET", "/_cat/plugins"),
    }


@pytest.mark.parametrize(
    ("root", "plugins"),
    [(OPENSEARCH, knn_plugin("3.5.0.0")), (OPENSEARCH, None), (OPENSEARCH_POSING, knn_plugin("2.19.1.0"))],
    ids=["opensearch", "plugins are not shown", "posing"],
)
def test_opensearch_is_asked_for_its_index(
    pretend: Callable[..., Pretender], connect: Callable[..., ElasticStore], root: Any, plugins: Any
) -> None:
    server = pretend(root, plugins=plugins)

    health = connect(server.url).health()

    assert health.detail == MISSING


@pytest.mark.parametrize("dialect", [ElasticsearchDialect(), OpenSearchDialect()], ids=lambda dialect: dialect.product)
def test_existing_mapping_identifies_a_server_without_root(
    pretend: Callable[..., Pretender], connect: Callable[..., ElasticStore], dialect: Dialect
) -> None:
    index = {"aliases": {"images": {}}, "mappings": Shape().mappings(dialect)}
    headers = PRODUCT if dialect.product == "Elasticsearch" else {}
    store = connect(pretend(None, headers, indices={"images-1": index}).url)

    with pytest.raises(StoreUnavailable) as raised:
        store.put([Tombstone(filepath="cat.jpg", seq=1, added=1)])

    assert str(raised.value).startswith(f"{dialect.product} returned 503")


def test_product_without_root_is_detected_once_the_index_exists(
    pretend: Callable[..., Pretender], connect: Callable[..., ElasticStore]
) -> None:
    server = pretend(None)
    store = connect(server.url)
    before = store.health().detail

    server.indices = {
        "images-1": {"aliases": {"images": {}}, "mappings": Shape().mappings(OpenSearchDialect())},
    }

    assert before == "the server is not Elasticsearch; to detect OpenSearch, GET / must be allowed"
    with pytest.raises(StoreUnavailable, match="OpenSearch returned 503"):
        store.count()


def test_missing_index_is_reported_as_missing(
    pretend: Callable[..., Pretender], connect: Callable[..., ElasticStore]
) -> None:
    store = connect(pretend(ELASTIC_9, PRODUCT).url)

    assert store.health().detail == MISSING


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

    assert trusted.detail == MISSING
    assert "certificate verify failed" in untrusted.detail
