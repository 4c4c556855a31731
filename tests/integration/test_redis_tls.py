"""API and workers with a Redis that accepts only TLS: every connection checks its certificate."""

import asyncio
import shutil
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from redis import Redis

from common.queue.jobs import SINGLE_QUEUE
from common.queue.publisher import Publisher
from common.queue.tasks import State
from common.wiring import Dependencies
from dev.cluster.certificates import Certificates, make_certificates
from dev.redis_server import RedisServer
from support.images import gradient
from support.tasks import accept_upload, wait_for_ends

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 60


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make a certificate with")
    return make_certificates(tmp_path / "certificates")


@pytest.fixture
def tls_url(certificates: Certificates, redis_server: RedisServer) -> Iterator[str]:
    """The Redis behind a TLS proxy: the Redis of the wheel is built without TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = Thread(target=lambda: asyncio.run(serve(redis_server.port, context, started)))
    thread.start()
    port, loop, stop = started.result(WITHIN_S)
    yield f"rediss://127.0.0.1:{port}/0"
    loop.call_soon_threadsafe(stop.set)
    thread.join()


async def serve(redis_port: int, context: ssl.SSLContext, started: Future[Any]) -> None:
    """Forward TLS connections until the event is set; `started` receives the port, the loop and the event."""

    async def serve_one(reader: StreamReader, writer: StreamWriter) -> None:
        plain_reader, plain_writer = await asyncio.open_connection("127.0.0.1", redis_port)
        try:
            # asyncio cancels it at the end of the test.
            with suppress(asyncio.CancelledError):
                await asyncio.gather(pump(reader, plain_writer), pump(plain_reader, writer))
        finally:
            for one in (writer, plain_writer):
                one.transport.abort()

    stop = asyncio.Event()
    server = await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=context)
    started.set_result((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
    await stop.wait()
    server.close()


async def pump(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def test_image_passes_through_a_queue_over_tls(
    parts: Dependencies, start_worker: Any, tls_url: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    # OpenSSL trusts this certificate in addition to the system's.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    task = accept_upload(parts, "cat.png", gradient())
    publisher = Publisher(tls_url)
    publisher.send([task], queue=SINGLE_QUEUE)
    publisher.close()

    start_worker(REDIS_URL=tls_url)

    assert wait_for_ends(parts.ledger, [task]) == [State.SUCCEEDED]


def test_untrusted_redis_certificate_receives_nothing(parts: Dependencies, tls_url: str, real_redis: Redis) -> None:
    task = accept_upload(parts, "cat.png", gradient())
    publisher = Publisher(tls_url)

    publisher.send([task], queue=SINGLE_QUEUE)
    publisher.close()

    assert real_redis.llen(SINGLE_QUEUE) == 0
