"""Slow, oversized and malformed requests against nginx with the shipped configuration and an API of few threads."""

import json
import re
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, NoReturn

import pytest
import requests

from api.new_key import table
from common.store.sqlite import SqliteStore
from dev.asking import answers
from dev.proxy import Proxy, why_not
from dev.redis_server import RedisServer
from support.processes import ROOT, serving_api
from support.records import record
from support.waiting import wait_until

IMAGE = (ROOT / "examples" / "images" / "chelsea.jpg").read_bytes()
THREADS = 4
CLIENTS = 1000
# The proxy accepts 256 requests at once from one address.
ADDRESSES = [f"127.0.1.{number}" for number in range(1, 9)]
# The reply that lists them has 300 KB: more than the buffers of a connection hold.
STORED, FILEPATH_BYTES = 150, 2000
FORM = "Content-Type: application/x-www-form-urlencoded"
KEY = {"Authorization": "Bearer the key"}


class Service:
    """A running API of one process, and a proxy in front of it."""

    def __init__(self, proxy: Proxy, api_log: Path) -> None:
        self.url = proxy.url
        self.proxy = proxy
        self._api_log = api_log
        self._port = proxy.port

    def send(self, data: bytes, *, source: str = "127.0.0.1", buffer_bytes: int | None = None) -> socket.socket:
        """Return a connection on which this was sent; `buffer_bytes` bounds the unread part of a reply."""
        connection = socket.socket()
        connection.settimeout(60)
        if buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", self._port))
        connection.sendall(data)
        return connection

    def requests_of(self, path: str) -> list[str]:
        """Return the ids of the requests for this path that reached the API."""
        lines = [line for line in self._api_log.read_text().splitlines() if f'"path": "{path}"' in line]
        return [json.loads(line)["request_id"] for line in lines]


@pytest.fixture(scope="module")
def start(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory, give_up: Callable[[str], NoReturn]
) -> Iterator[Callable[..., Service]]:
    if reason := why_not():
        give_up(reason)
    with ExitStack() as running:

        def start(*, with_keys: bool = False) -> Service:
            folder = tmp_path_factory.mktemp("service")
            fill(folder / "match.db")
            (folder / "keys.toml").write_text(table("all", ["read", "write"], "the key"))
            environment = {
                "MATCH_API_THREADS": f"{THREADS}",
                "MATCH_TRUSTED_PROXIES": "1",
                "MATCH_LOG_LEVEL": "debug",
                "REDIS_URL": redis_server.url,
                "MATCH_API_KEYS_FILE": f"{folder}/keys.toml" if with_keys else "",
            }
            api = running.enter_context(serving_api(folder, environment))
            proxy = running.enter_context(Proxy(folder / "proxy", [api.port], with_keys=with_keys))
            return Service(proxy, api.log)

        yield start


@pytest.fixture(scope="module")
def service(start: Callable[..., Service]) -> Service:
    return start()


@pytest.fixture(scope="module")
def locked(start: Callable[..., Service]) -> Service:
    """A service with API keys."""
    return start(with_keys=True)


def fill(database: Path) -> None:
    store = SqliteStore(database)
    store.prepare()
    store.put([record(f"{number}".zfill(FILEPATH_BYTES), number) for number in range(1, STORED + 1)])
    store.close()


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def replies(connection: socket.socket) -> list[tuple[int, str]]:
    """Return status and request id of each reply until the connection ends."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    statuses = re.findall(rb"^HTTP/1.1 (\d+)", received, re.MULTILINE)
    ids = re.findall(rb"^X-Request-ID: (\S+)", received, re.MULTILINE)
    return [(int(status), name.decode()) for status, name in zip(statuses, ids, strict=True)]


def envelope(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return the reply's status and body, which has the form of all replies."""
    reply = HTTPResponse(connection)
    reply.begin()
    body = json.loads(reply.read())
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["X-Request-ID"]
    assert body.keys() >= {"status", "error", "method", "result", "code"}
    return reply.status, body


# --- slow clients ---


@contextmanager
def many_descriptors() -> Iterator[None]:
    """Allow this process more connections than there are slow clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * CLIENTS), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


SLOW = {
    "silent": b"",
    "half a head": b"POST /add HTTP/1.1\r\nHost: a\r\nContent-Ty",
    "half a body": head("/add", FORM, "Content-Length: 1000") + b"filepath=a",
    "half a chunk": head("/search", FORM, "Transfer-Encoding: chunked") + b"20\r\nfilepath=a",
    "half a batch": head("/add/batch", "Content-Type: application/x-ndjson", "Content-Length: 1000") + b"{",
    "no reading": head(f"/list?limit={STORED}", method="GET"),
}


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
def test_1000_slow_clients_leave_the_api_to_others(service: Service, sent: bytes) -> None:
    def seconds_of(method: str, path: str, expected: int, **body: Any) -> float:
        began = monotonic()
        assert requests.request(method, service.url + path, timeout=60, **body).status_code == expected
        return monotonic() - began

    with many_descriptors(), ExitStack() as opened:
        for number in range(CLIENTS):
            source = ADDRESSES[number % len(ADDRESSES)]
            opened.enter_context(service.send(sent, source=source, buffer_bytes=4096))
            # The proxy forwards 256 requests at once to an API.
            if sent == SLOW["no reading"] and number % 100 == 99:
                wait_until(lambda expected=number: len(service.requests_of("/list")) > expected)

        pings = [seconds_of("GET", "/ping", 200) for _ in range(5)]
        adds = [seconds_of("POST", "/add", 202, data={"filepath": "a"}, files={"image": IMAGE}) for _ in range(5)]

    assert (median(pings) < 1, median(adds) < 1) == (True, True)


def test_one_address_cannot_occupy_the_proxy(service: Service) -> None:
    with ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(service.send(SLOW["half a body"], source=ADDRESSES[0]))
        with service.send(head("/ping", "Connection: close", method="GET"), source=ADDRESSES[0]) as same:
            refused = envelope(same)
        with service.send(head("/ping", "Connection: close", method="GET"), source=ADDRESSES[1]) as other:
            served = replies(other)

    assert (refused[0], refused[1]["code"]) == (503, "overloaded")
    assert [status for status, _ in served] == [200]


def test_slow_upload_reaches_the_api_when_complete(service: Service) -> None:
    body = b"filepath=nowhere"
    with service.send(head("/delete/", FORM, f"Content-Length: {len(body)}", method="DELETE") + body[:5]) as connection:
        wait_until(lambda: answers(f"{service.url}/livez", within_s=5))
        before = service.requests_of("/delete/")
        connection.sendall(body[5:])
        reply = HTTPResponse(connection)
        reply.begin()

    assert (before, reply.status) == ([], 200)


def test_client_that_expects_100_continue_gets_it(service: Service) -> None:
    body = b"filepath=nowhere"
    asking = head("/delete", FORM, f"Content-Length: {len(body)}", "Expect: 100-continue", method="DELETE")
    with service.send(asking) as connection:
        interim = connection.recv(25, socket.MSG_WAITALL)
        connection.sendall(body)
        reply = HTTPResponse(connection)
        reply.begin()

    assert (interim, reply.status) == (b"HTTP/1.1 100 Continue\r\n\r\n", 200)


def test_batch_is_answered_to_a_client_that_reads_last(service: Service) -> None:
    line = b'{"url": "http://example.org/a.jpg", "filepath": "a"}\n'
    count = 20_000
    with service.send(
        head("/add/batch", "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked"), buffer_bytes=4096
    ) as connection:
        for _ in range(count // 100):
            connection.sendall(b"%x\r\n%s\r\n" % (100 * len(line), 100 * line))
        connection.sendall(b"0\r\n\r\n")
        reply = HTTPResponse(connection)
        reply.begin()
        outcomes = [json.loads(text) for text in reply]

    assert [outcome["line"] for outcome in outcomes] == list(range(1, count + 1))


# --- API keys ---


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/add", ["Content-Type: multipart/form-data; boundary=b"]),
        ("/add/batch", ["Content-Type: application/x-ndjson"]),
        ("/search?limit=1", [FORM]),
    ],
)
@pytest.mark.parametrize(
    ("key", "code"), [([], "key_required"), (["Authorization: Bearer unknown"], "unknown_key")], ids=["none", "unknown"]
)
def test_upload_without_a_key_is_refused_before_its_body(
    locked: Service, path: str, headers: list[str], key: list[str], code: str
) -> None:
    with locked.send(head(path, *headers, *key, "Content-Length: 9000000", "Expect: 100-continue")) as connection:
        status, body = envelope(connection)

    assert (status, body["code"], body["result"]) == (401, code, [])
    assert locked.requests_of(path.partition("?")[0]) == []


def test_upload_with_a_key_is_accepted(locked: Service) -> None:
    form = {"data": {"filepath": "a"}, "files": {"image": IMAGE}}

    added = requests.post(f"{locked.url}/add", headers=KEY, timeout=60, **form)
    forbidden = requests.post(f"{locked.url}/tasks/retry", headers=KEY, data={"limit": "1"}, timeout=60)

    assert added.status_code == 202
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "missing_scope")
    assert 'scope="admin"' in forbidden.headers["WWW-Authenticate"]


def test_authorize_is_not_public(locked: Service) -> None:
    asked = {"X-Original-Method": "POST", "X-Original-URI": "/add", "Authorization": "Bearer the key"}

    assert requests.get(f"{locked.url}/_authorize", headers=asked, timeout=60).status_code == 404


# --- malformed and ambiguous requests ---

MALFORMED = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, "bad_request"),
    "an unknown version": (b"GET / HTTP/9.9\r\n\r\n", 400, "bad_request"),
    "a header without a colon": (head("/", "secret header", method="GET"), 400, "bad_request"),
    "two hosts": (head("/", "Host: secret", method="GET"), 400, "bad_request"),
    "a line that is too long": (head("/" + "a" * 9000, method="GET"), 414, "uri_too_long"),
    "headers that are too large": (head("/", *["A: " + "b" * 8000] * 5, method="GET"), 431, "headers_too_large"),
    "an unknown coding": (head("/", "Transfer-Encoding: secret"), 501, "unsupported_transfer_coding"),
    "a body that is too large": (head("/add", FORM, "Content-Length: 999999999999"), 413, "too_large"),
}


@pytest.mark.parametrize(("sent", "status", "code"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_request_is_refused_in_the_envelope(service: Service, sent: bytes, status: int, code: str) -> None:
    with service.send(sent) as connection:
        received, body = envelope(connection)

    assert (received, body["code"]) == (status, code)


HIDDEN = head("/hidden", method="GET")
LAST = head("/last", "Connection: close", method="GET")
CHUNKED = "Transfer-Encoding: chunked"


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


# Each request's end is ambiguous: HIDDEN is a part of its body by one reading, and a request by another.
AMBIGUOUS = {
    "a length and chunks": head("/count", FORM, f"Content-Length: {len(HIDDEN) + 5}", CHUNKED) + b"0\r\n\r\n" + HIDDEN,
    "chunks and a length": head("/count", FORM, CHUNKED, "Content-Length: 4") + chunked(HIDDEN),
    "two lengths": head("/count", FORM, "Content-Length: 0", f"Content-Length: {len(HIDDEN)}") + HIDDEN,
    "a list of lengths": head("/count", FORM, f"Content-Length: 0, {len(HIDDEN)}") + HIDDEN,
    "a length with a sign": head("/count", FORM, f"Content-Length: +{len(HIDDEN)}") + HIDDEN,
    "a length in hexadecimal": head("/count", FORM, f"Content-Length: 0x{len(HIDDEN):x}") + HIDDEN,
    "a length with a space in its name": head("/count", FORM, f"Content-Length : {len(HIDDEN)}") + HIDDEN,
    "a length after a tab": head("/count", FORM, f"\tContent-Length: {len(HIDDEN)}") + HIDDEN,
    "a folded length": head("/count", FORM, "A: b", f" Content-Length: {len(HIDDEN)}") + HIDDEN,
    "a length with an underscore": head("/count", FORM, f"Content_Length: {len(HIDDEN)}") + HIDDEN,
    "a length that is huge": head("/count", FORM, f"Content-Length: {2**64 + len(HIDDEN)}") + HIDDEN,
    "two codings": head("/count", FORM, "Transfer-Encoding: identity, chunked") + chunked(HIDDEN),
    "chunked twice": head("/count", FORM, CHUNKED, CHUNKED) + chunked(HIDDEN),
    "an unknown coding": head("/count", FORM, "Transfer-Encoding: xchunked") + chunked(HIDDEN),
    "a coding with a space in its name": head("/count", FORM, "Transfer-Encoding : chunked") + chunked(HIDDEN),
    "a coding after a tab": head("/count", FORM, "Transfer-Encoding:\tchunked") + chunked(HIDDEN),
    "a coding with a vertical tab": head("/count", FORM, "Transfer-Encoding: \x0bchunked") + chunked(HIDDEN),
    "a folded coding": head("/count", FORM, "Transfer-Encoding:", " chunked") + chunked(HIDDEN),
    "a coding with an underscore": head("/count", FORM, "Transfer_Encoding: chunked") + chunked(HIDDEN),
    "chunks in HTTP/1.0": head("/count", FORM, CHUNKED).replace(b"1.1", b"1.0") + chunked(HIDDEN),
    "a chunk extension": head("/count", FORM, CHUNKED) + b"1;a=b\r\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk extension with a line feed": head("/count", FORM, CHUNKED) + b"1;\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk longer than declared": head("/count", FORM, CHUNKED) + b"1\r\nab\r\n0\r\n\r\n" + HIDDEN,
    "a chunk size with a sign": head("/count", FORM, CHUNKED) + b"+1\r\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk size of 0x": head("/count", FORM, CHUNKED) + b"0x1\r\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk size that is huge": head("/count", FORM, CHUNKED) + b"ffffffffffffffff1\r\na\r\n0\r\n\r\n" + HIDDEN,
    "chunks that end in a line feed": head("/count", FORM, CHUNKED) + b"1\na\n0\n\n" + HIDDEN,
    "a trailer with a length": head("/count", FORM, CHUNKED) + b"0\r\nContent-Length: 99\r\n\r\n" + HIDDEN,
    "lines that end in a line feed": head("/count", FORM, "Content-Length: 0").replace(b"\r\n", b"\n") + HIDDEN,
    "lines that end in a carriage return": head("/count", FORM, "A: b\rContent-Length: 0") + HIDDEN,
    "a null in a header": head("/count", FORM, "A: b\x00", "Content-Length: 0") + HIDDEN,
    "a line feed in a header": head("/count", FORM, f"A: b\nContent-Length: {len(HIDDEN)}") + HIDDEN,
    "a body on GET": head("/count", FORM, f"Content-Length: {len(HIDDEN)}", method="GET") + HIDDEN,
    "an upgrade": head("/count", FORM, "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 0") + HIDDEN,
    "a length to be dropped": head("/count", FORM, "Connection: Content-Length", f"Content-Length: {len(HIDDEN)}")
    + HIDDEN,
}


def ids_at_the_api(service: Service) -> set[str]:
    """Return the ids of the test's requests that the API has answered, when it has logged all of them."""
    last = requests.get(f"{service.url}/ping", timeout=60).headers["X-Request-ID"]
    wait_until(lambda: last in service.requests_of("/ping"))
    return {name for path in ("/count", "/hidden", "/last") for name in service.requests_of(path)}


def test_pipelined_requests_get_a_reply_each(service: Service) -> None:
    before = ids_at_the_api(service)
    with service.send(2 * HIDDEN + LAST) as connection:
        received = replies(connection)

    assert len(received) == 3
    assert ids_at_the_api(service) - before == {name for _, name in received}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_no_request_is_hidden_in_another(service: Service, sent: bytes) -> None:
    before = ids_at_the_api(service)
    with service.send(sent + LAST) as connection:
        received = replies(connection)

    assert received
    assert ids_at_the_api(service) - before <= {name for _, name in received}
