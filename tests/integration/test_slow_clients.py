"""Clients that stall, drip and send what is no request, against a real server of few threads."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from selectors import DefaultSelector
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
import requests
from gunicorn.config import Config

from api.server.arrival import Patience
from api.server.connection import NOT_READ, STREAM_BYTES, Reader
from api.server.worker import Bounds, Worker
from common.images.signature import LENGTH
from common.store.base import Record
from common.store.sqlite import SqliteStore
from dev.ports import free_port
from dev.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "examples" / "images" / "chelsea.jpg"
THREADS = 4
STALLED = 40
# What a process of gunicorn takes.
CONNECTIONS = 1000
SLOW_S = 2
# All of them together are a reply of more than a megabyte.
STORED, FILEPATH_BYTES = 600, 2000
FORM = "Content-Type: application/x-www-form-urlencoded"
LINES = "Content-Type: application/x-ndjson"
# It gives up after a second those who do not read.
IMPATIENT = (
    "import api.server.connection; api.server.connection.SEND_WITHIN_S = 1.0; from api.__main__ import main; main()"
)


class Api:
    """A running API of one process and few threads."""

    def __init__(self, port: int, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self.process = process

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def sending(self, data: bytes) -> socket.socket:
        connection = self.connect()
        connection.sendall(data)
        return connection

    def not_reading(self, data: bytes) -> socket.socket:
        """Return a connection on which little is under way, so that a long reply waits for its client."""
        connection = socket.socket()
        connection.settimeout(60)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(data)
        return connection


@pytest.fixture(scope="module")
def start(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Api]]:
    with ExitStack() as running:

        def start(*command: str, **more: str) -> Api:
            folder = tmp_path_factory.mktemp("api")
            fill(folder / "match.db")
            port = free_port()
            environment = {
                "PORT": str(port),
                "WORKER_COUNT": "1",
                "MATCH_API_THREADS": str(THREADS),
                "REDIS_URL": redis_server.url,
                "MATCH_STORE_URL": f"sqlite:///{folder}/match.db",
                "MATCH_LOG_LEVEL": "debug",
            }
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, *(command or ["-m", "api"])],
                    cwd=ROOT,
                    env=os.environ | environment | more,
                    stderr=log,
                    stdout=log,
                )
            running.callback(stop, process)
            api = Api(port, folder / "log", process)
            wait_until(lambda: answers(api.url))
            return api

        yield start


def fill(database: Path) -> None:
    store = SqliteStore(database)
    store.prepare()
    store.put(
        [
            Record(
                filepath=f"{number}".zfill(FILEPATH_BYTES),
                seq=number,
                signatures=(np.zeros(LENGTH, np.int8),),
                added=0,
                width=1,
                height=1,
            )
            for number in range(1, STORED + 1)
        ]
    )
    store.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(90) == 0


@pytest.fixture(scope="module")
def patient(start: Callable[..., Api]) -> Api:
    """It waits for clients longer than any test takes."""
    return start(MATCH_REQUEST_TIMEOUT_S="600", FORWARDED_ALLOW_IPS="*")


@pytest.fixture(scope="module")
def strict(start: Callable[..., Api]) -> Api:
    return start(MATCH_REQUEST_TIMEOUT_S=str(SLOW_S))


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/livez", timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def wait_until(done: Callable[[], Any]) -> None:
    deadline = monotonic() + 60
    while not done():
        assert monotonic() < deadline, "it did not come about in time"
        sleep(0.05)


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def reply(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return the reply's status and body; it is in the envelope, and carries the headers of all replies."""
    answer = HTTPResponse(connection)
    answer.begin()
    body = json.loads(answer.read())
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert body.keys() >= {"status", "error", "method", "result", "code"}
    return answer.status, body


STALLS = {
    "nothing": b"",
    "a part of the first line": b"POST /a",
    "a part of a header": b"POST /add HTTP/1.1\r\nHost: a\r\nContent-Ty",
    "no body": head("/add", FORM, "Content-Length: 1000"),
    "a part of a body": head("/add", FORM, "Content-Length: 1000") + b"filepath=a",
    "an upload": head("/add", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 9000000")
    + b"a" * 99999,
    "a part of a chunk": head("/add", FORM, "Transfer-Encoding: chunked") + b"20\r\nfilepath=a",
    "no last chunk": head("/search", FORM, "Transfer-Encoding: chunked") + b"2\r\na=\r\n",
    "a second request": head("/ping", method="GET") + b"GET /pin",
    "a body for what takes none": head("/count", FORM, "Content-Length: 1000", method="GET"),
    "a body that is too large": head("/add", FORM, "Content-Length: 999999999999"),
    "a question whether to go on": head("/add", FORM, "Content-Length: 1000", "Expect: 100-continue"),
    "lines": head("/add/batch", LINES, "Transfer-Encoding: chunked") + b"5\r\n{",
    "lines for what takes none": head("/add", LINES, "Content-Length: 1000") + b"{",
}


@pytest.mark.parametrize("stall", STALLS.values(), ids=STALLS)
def test_40_stalled_clients_leave_the_api_answering(patient: Api, stall: bytes) -> None:
    with ExitStack() as opened:
        for _ in range(STALLED):
            opened.enter_context(patient.sending(stall))

        ping = requests.get(f"{patient.url}/ping", timeout=30)
        with IMAGE.open("rb") as image:
            added = requests.post(
                f"{patient.url}/add", data={"filepath": "a"}, files={"image": image}, timeout=30
            )  # fmt: skip

    assert (ping.status_code, added.status_code) == (200, 202)


@pytest.mark.parametrize(
    "begun", [stall for name, stall in STALLS.items() if name.startswith(("a part", "no ", "an upload"))]
)
def test_a_client_that_stalls_is_told_that_it_took_too_long(strict: Api, begun: bytes) -> None:
    with strict.sending(begun) as connection:
        status, body = reply(connection)

    assert (status, body["code"]) == (408, "request_timeout")


def test_a_client_that_drips_is_told_that_it_took_too_long(strict: Api) -> None:
    with strict.sending(head("/add", FORM, "Content-Length: 1000000")) as connection:
        connection.settimeout(0.1)
        deadline = monotonic() + 60
        while not (told := received(connection)) and monotonic() < deadline:
            connection.sendall(b"a")

    assert told.startswith(b"HTTP/1.1 408 ")


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1000)
    except TimeoutError:
        return b""


def test_a_connection_that_sends_nothing_is_closed_without_a_word(strict: Api) -> None:
    with strict.connect() as connection:
        assert connection.recv(1) == b""


def test_lines_that_stall_are_told_after_the_whole_ones(strict: Api) -> None:
    line = b'{"url": "http://example.org/a.jpg", "filepath": "a"}\n'
    with strict.sending(head("/add/batch", LINES, "Content-Length: 1000000") + 1000 * line) as connection:
        answer = HTTPResponse(connection)
        answer.begin()
        *accepted, last = [json.loads(told) for told in answer]

    assert len(accepted) > 100
    assert {outcome["status"] for outcome in accepted} == {"ok"}
    assert (last["code"], last["line"]) == ("request_timeout", len(accepted) + 1)


def test_lines_that_wait_for_us_are_not_cut_off(strict: Api) -> None:
    """What is sent in one piece and read later than the client's time allows was not late."""
    line = b'{"url": "http://example.org/a.jpg", "filepath": "a"}\n'
    with strict.sending(head("/add/batch", LINES, "Transfer-Encoding: chunked")) as connection:
        for _ in range(3 * SLOW_S):
            connection.sendall(b"%x\r\n%s\r\n" % (500 * len(line), 500 * line))
            sleep(0.5)
        connection.sendall(b"0\r\n\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        outcomes = [json.loads(told) for told in answer]

    assert [outcome["status"] for outcome in outcomes] == ["ok"] * 500 * 3 * SLOW_S


def test_a_client_that_asks_is_told_to_go_on(patient: Api) -> None:
    body = b"filepath=nowhere"
    asking = head("/delete", FORM, f"Content-Length: {len(body)}", "Expect: 100-continue", method="DELETE")
    with patient.sending(asking) as connection:
        told = connection.recv(25, socket.MSG_WAITALL)
        connection.sendall(body)
        answer = HTTPResponse(connection)
        answer.begin()

    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.status == 200


def test_requests_that_come_in_one_piece_are_answered_in_order(patient: Api) -> None:
    requests_ = [head("/ping", method="GET"), head("/livez", method="GET"), head("/nowhere", "Connection: close")]
    with patient.sending(b"".join(requests_)) as connection:
        told = b"".join(iter(lambda: connection.recv(65536), b""))

    assert [line[:12] for line in told.splitlines() if line.startswith(b"HTTP/")] == [
        b"HTTP/1.1 200",
        b"HTTP/1.1 200",
        b"HTTP/1.1 404",
    ]


def test_a_body_of_chunks_is_read_whole(patient: Api) -> None:
    chunked = head("/count", FORM, "Transfer-Encoding: chunked", "Connection: close")
    with patient.sending(chunked + b"9\r\nfilter[a]\r\n2\r\n=b\r\n0\r\n\r\n") as connection:
        answer = HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())

    assert (answer.status, body["result"]) == (200, [0])


def test_a_form_that_is_cut_short_is_told(patient: Api) -> None:
    with patient.sending(
        head("/add", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 99") + b"--b"
    ) as (connection):
        connection.shutdown(socket.SHUT_WR)
        status, body = reply(connection)

    assert (status, body["field"]) == (400, "body")


def test_a_client_that_never_ends_its_side_holds_up_nobody(patient: Api) -> None:
    closing = head("/ping", "Connection: close", method="GET")
    with ExitStack() as opened:
        for _ in range(STALLED):
            connection = opened.enter_context(patient.sending(closing))
            assert connection.recv(12) == b"HTTP/1.1 200"
        begun = monotonic()
        requests.get(f"{patient.url}/ping", timeout=60)

        # One after the other they would hold up the loop for two seconds each.
        assert monotonic() - begun < STALLED


BROKEN = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, "bad_request"),
    "no version": (b"GET /\r\n\r\n", 400, "bad_request"),
    "an unknown version": (b"GET / HTTP/9.9\r\n\r\n", 400, "bad_request"),
    "a lower-case method": (b"get / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "lines that end in LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
    "a header that is none": (head("/", "secret header", method="GET"), 400, "bad_request"),
    "a header that is folded": (head("/", "A: b", " secret", method="GET"), 400, "bad_request"),
    "two hosts": (head("/", "Host: secret", method="GET"), 400, "bad_request"),
    "two lengths": (head("/", "Content-Length: 1", "Content-Length: 2"), 400, "bad_request"),
    "a length and chunks": (head("/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, "bad_request"),
    "a line that is too long": (head("/" + "a" * 9000, method="GET"), 414, "uri_too_long"),
    "a line without end": (b"GET /" + b"a" * 70_000, 414, "uri_too_long"),
    "something else expected": (head("/", "Expect: secret"), 417, "expectation_failed"),
    "too many headers": (head("/", *["A: b"] * 101, method="GET"), 431, "headers_too_large"),
    "a header that is too large": (head("/", "A: " + "b" * 9000, method="GET"), 431, "headers_too_large"),
    "headers without end": (head("/", method="GET")[:-2] + b"A: b\r\n" * 20_000, 431, "headers_too_large"),
    "an unknown coding": (head("/", "Transfer-Encoding: secret"), 501, "unsupported_transfer_coding"),
}


@pytest.mark.parametrize(("sent", "status", "code"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_request_is_told_in_the_envelope(patient: Api, sent: bytes, status: int, code: str) -> None:
    with patient.sending(sent) as connection:
        told, body = reply(connection)
        ended = connection.recv(1)

    assert (told, body["code"], ended) == (status, code, b"")
    assert "secret" not in patient.log.read_text()


CHUNKS = "Transfer-Encoding: chunked"
UNCLEAR = {
    "a body that is too large": head("/nowhere", FORM, "Content-Length: 999999999999"),
    "a body that is too large, on request": head("/add", FORM, "Content-Length: 999999999999", "Expect: 100-continue"),
    "a length of 19 digits": head("/nowhere", FORM, "Content-Length: 1000000000000000000"),
    "two codings": head("/ping", FORM, "Transfer-Encoding: identity, chunked"),
    "chunks that are none": head("/nowhere", FORM, CHUNKS) + b"zz\r\n",
    "a chunk longer than it says": head("/add", "Content-Type: text/plain", CHUNKS) + b"1\r\nab\r\n0\r\n\r\n",
    "a wrong chunk extension": head("/nowhere", FORM, CHUNKS) + b"1;=\r\na\r\n0\r\n\r\n",
    "a wrong trailer": head("/add", "Content-Type: text/plain", CHUNKS) + b"0\r\n:\r\n\r\n",
    "too many chunks": head("/nowhere", FORM, CHUNKS) + 5000 * b"1\r\na\r\n",
}


@pytest.mark.parametrize("sent", UNCLEAR.values(), ids=UNCLEAR)
def test_a_request_whose_end_is_unclear_has_one_reply_and_none_follows(patient: Api, sent: bytes) -> None:
    with patient.sending(sent + head("/livez", method="GET")) as connection:
        told = b"".join(iter(lambda: connection.recv(65536), b""))

    assert told.count(b"HTTP/1.1 ") == 1
    assert told.startswith(b"HTTP/1.1 4")
    assert b"\r\nConnection: close\r\n" in told


def test_a_body_that_nobody_reads_leaves_its_connection_to_the_next_request(patient: Api) -> None:
    unread = head("/nowhere", FORM, "Content-Length: 300000") + 300_000 * b"a"
    with patient.sending(unread + head("/ping", "Connection: close", method="GET")) as connection:
        told = b"".join(iter(lambda: connection.recv(65536), b""))

    assert told.startswith(b"HTTP/1.1 404 ")
    assert told.count(b"HTTP/1.1 200 ") == 1


HARMLESS = {
    "a prefix of the path": ["SCRIPT_NAME: /ping"],
    "a prefix that is none": ["SCRIPT_NAME: /nowhere"],
    "another path": ["PATH_INFO: /nowhere"],
    "two schemes": ["X-Forwarded-Proto: http", "X-Forwarded-Ssl: on"],
}


@pytest.mark.parametrize("headers", HARMLESS.values(), ids=HARMLESS)
def test_no_header_changes_where_a_request_goes(patient: Api, headers: list[str]) -> None:
    with patient.sending(head("/ping", *headers, method="GET")) as connection:
        answer = HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())

    assert (answer.status, body["method"]) == (200, "ping")


LARGE = head(f"/list?limit={STORED}", method="GET")
MOST_UNSENT = 1_000_000


@pytest.fixture
def ends() -> Iterator[tuple[Reader, socket.socket]]:
    """The two ends of a connection that holds little."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with Reader(ours, most_unsent=MOST_UNSENT) as reader, theirs:
        yield reader, theirs


def test_a_reply_that_is_whole_waits_for_no_client(ends: tuple[Reader, socket.socket]) -> None:
    reader, theirs = ends
    headers, body = os.urandom(1000), os.urandom(MOST_UNSENT)

    send(reader, [headers, body])

    assert theirs.recv(MOST_UNSENT) + reader.unsent == headers + body


def test_telling_a_client_to_go_on_never_waits_for_it(ends: tuple[Reader, socket.socket]) -> None:
    reader, _ = ends
    reader.sendall(bytes(MOST_UNSENT))

    with pytest.raises(BrokenPipeError):
        reader.send(b"HTTP/1.1 100 Continue\r\n\r\n")


TOO_MUCH = {
    "a reply that is too large": [bytes(2 * MOST_UNSENT)],
    "a reply in pieces": [bytes(64 * 1024)] * 100,
}


@pytest.mark.parametrize("pieces", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_client_that_does_not_read_its_reply_is_cut_off(
    ends: tuple[Reader, socket.socket], pieces: list[bytes]
) -> None:
    reader, _ = ends
    reader.patience = Patience(0.1)

    with pytest.raises(BrokenPipeError):
        send(reader, pieces)


@pytest.mark.parametrize("pieces", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_client_that_reads_its_reply_in_drips_is_cut_off(
    ends: tuple[Reader, socket.socket], pieces: list[bytes]
) -> None:
    reader, theirs = ends
    reader.patience = Patience(0.5)

    def drip() -> None:
        while theirs.recv(100):
            sleep(0.02)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(drip)
        with pytest.raises(BrokenPipeError):
            send(reader, pieces)
        reader.close()


def test_a_client_that_reads_its_reply_gets_all_of_it(ends: tuple[Reader, socket.socket]) -> None:
    reader, theirs = ends
    pieces = [os.urandom(1000) for _ in range(1000)]
    kept = STREAM_BYTES + 1000

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, reader, pieces)
        got = theirs.recv(1_000_000 - kept, socket.MSG_WAITALL)
        sending.result(60)

    assert len(reader.unsent) <= kept
    assert b"".join(pieces).startswith(got)
    assert b"".join(pieces).endswith(reader.unsent)


def send(reader: Reader, pieces: list[bytes]) -> None:
    for piece in pieces:
        reader.sendall(piece)


def begin(connection: socket.socket) -> bytes:
    """Return the beginning of a reply when it is there; it stays to be read."""
    return connection.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)


def test_40_clients_that_do_not_read_their_replies_leave_the_api_answering(patient: Api) -> None:
    with ExitStack() as opened:
        connections = [opened.enter_context(patient.not_reading(LARGE)) for _ in range(STALLED)]
        begun = [begin(connection) for connection in connections]
        ping = requests.get(f"{patient.url}/ping", timeout=30)

    assert begun == STALLED * [b"HTTP/1.1 200"]
    assert ping.status_code == 200


def test_replies_that_are_read_late_are_whole_and_in_order(patient: Api) -> None:
    whole = requests.get(f"{patient.url}/list?limit={STORED}", timeout=30).content
    with ExitStack() as opened:
        connections = [opened.enter_context(patient.not_reading(LARGE + LARGE)) for _ in range(2 * THREADS)]
        for connection in connections:
            begin(connection)
        assert answers(patient.url)

        for connection in connections:
            connection.sendall(head("/ping", "Connection: close", method="GET"))
        told = [b"".join(iter(partial(connection.recv, 65536), b"")) for connection in connections]

    assert [(one.count(whole), one.count(b"HTTP/1.1 200 ")) for one in told] == 2 * THREADS * [(2, 3)]


def read(connection: socket.socket) -> bytes:
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.read()


def test_a_client_that_never_reads_a_reply_that_its_thread_has_left_is_cut_off(start: Callable[..., Api]) -> None:
    api = start("-c", IMPATIENT)
    with api.not_reading(LARGE) as connection:
        begin(connection)

        wait_until(lambda: NOT_READ in api.log.read_text())

        with pytest.raises(IncompleteRead):
            read(connection)
    assert answers(api.url)


def test_a_worker_that_is_told_to_stop_sends_the_replies_under_way(start: Callable[..., Api]) -> None:
    api = start()
    whole = requests.get(f"{api.url}/list?limit={STORED}", timeout=30).content
    with api.not_reading(LARGE) as connection:
        begin(connection)

        api.process.terminate()
        wait_until(lambda: not answers(api.url))

        assert read(connection) == whole
    assert api.process.wait(90) == 0


def test_of_too_many_replies_that_are_not_read_some_are_given_up(start: Callable[..., Api]) -> None:
    """25 MB may be kept here, and each of these is more than one."""
    api = start(MATCH_MAX_IMAGE_BYTES="1000000")
    with ExitStack() as opened:
        for _ in range(STALLED):
            begin(opened.enter_context(api.not_reading(LARGE)))

        wait_until(lambda: "too much is kept" in api.log.read_text())

        assert answers(api.url)


class NoThread:
    """Threads that begin with nothing."""

    @staticmethod
    def submit(*_: Any) -> "Future[bool]":
        return Future()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker whose loop the test turns; a megabyte may be kept, and no request is answered."""
    worker = Worker(0, 0, [], None, 30, Config(), None)
    worker._bounds = Bounds(60, body_bytes=1_000_000, held_bytes=1_000_000)
    worker.tpool = NoThread()  # type: ignore[assignment]  # it does what is asked of threads
    worker.poller = DefaultSelector()
    yield worker
    worker.murder_keepalived(force=True)
    for _, conn, _ in worker._queued:
        worker._close(conn)  # type: ignore[arg-type]  # all of them are ours
    worker.poller.close()
    worker.tmp.close()


def test_what_is_sent_behind_requests_counts_with_them(worker: Worker, tmp_path: Path) -> None:
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(f"{tmp_path}/socket")
        listener.listen()
        clients = [opened.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(8)]
        for client in clients:
            client.settimeout(0.1)
            client.connect(f"{tmp_path}/socket")
            client.sendall(head("/ping", method="GET") + bytes(150_000))
            worker.accept(listener)
            worker.wait_for_and_dispatch_events(0)

        told = [received(client)[:12] for client in clients]

    assert told == 6 * [b""] + 2 * [b"HTTP/1.1 503"]


def test_a_worker_that_is_told_to_stop_waits_for_no_stalled_client(start: Callable[..., Api]) -> None:
    """Leaving `start` stops the server and asserts that it ended well, in time."""
    api = start(MATCH_REQUEST_TIMEOUT_S="2", MATCH_MAX_WAIT_S="5")

    stalled = [api.sending(stall) for stall in STALLS.values()]

    assert answers(api.url)
    for connection in stalled:
        connection.close()


def test_when_too_much_comes_in_whoever_sends_most_is_refused(start: Callable[..., Api]) -> None:
    """The largest form is 16.6 MB here, a thousand numbered fields, and half as much besides may come in."""
    api = start(MATCH_MAX_IMAGE_BYTES="1000000", MATCH_REQUEST_TIMEOUT_S="60")
    form = head("/add", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 9900000")

    with ExitStack() as opened:
        large = opened.enter_context(api.sending(form + b"a" * 9_800_000))
        others = [opened.enter_context(api.sending(form + b"a" * 6_000_000)) for _ in range(3)]
        status, body = reply(large)
        with IMAGE.open("rb") as image:
            added = requests.post(f"{api.url}/add", data={"filepath": "a"}, files={"image": image}, timeout=30)
        others[0].settimeout(0.1)
        told = received(others[0])

    assert (status, body["code"]) == (503, "overloaded")
    assert (added.status_code, told) == (202, b"")


def test_any_number_of_silent_clients_leaves_room_for_others(patient: Api) -> None:
    with ExitStack() as opened:
        silent = [opened.enter_context(patient.sending(b"GET /")) for _ in range(CONNECTIONS + 10)]

        ping = requests.get(f"{patient.url}/ping", timeout=60)
        silent[0].settimeout(60)

        # The one that was silent longest has made room.
        assert (ping.status_code, silent[0].recv(1)) == (200, b"")


PARTS = 99 * b'--b\r\nContent-Disposition: form-data; name="limit"\r\n\r\n1\r\n' + b"--b--\r\n"
TOO_LARGE = {
    "a body larger than the endpoint takes": head("/count", FORM, "Content-Length: 300000") + b"a" * 300_000,
    "a body larger than any endpoint takes": head("/add", FORM, "Content-Length: 99999999999"),
    "a chunked body larger than the endpoint takes": head(
        "/count", FORM, "Transfer-Encoding: chunked", "Connection: close"
    )
    + b"493e0\r\n"
    + b"a" * 300_000
    + b"\r\n0\r\n\r\n",
    "a field larger than a form holds in memory": head("/add", FORM, "Content-Length: 3000000")
    + b"a="
    + b"a" * 2_999_998,
    "more fields than a form has": head("/add", FORM, "Content-Length: 4000") + b"a=1&" * 1000,
    "more parts than a form has": head(
        "/count", "Content-Type: multipart/form-data; boundary=b", f"Content-Length: {len(PARTS)}"
    )
    + PARTS,
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_is_too_large_is_told(patient: Api, sent: bytes) -> None:
    with patient.sending(sent) as connection:
        status, body = reply(connection)

    assert (status, body["code"]) == (413, "too_large")
