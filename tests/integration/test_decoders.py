"""Decoder processes: results, limits, deaths and replacements."""

import io
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.decoding import process
from common.decoding.pool import DecoderPool
from common.decoding.process import ProcessEnd
from common.decoding.protocol import DecoderBug, Output
from common.errors import ImageError, Overloaded
from common.images.local_features.features import LocalFeatures
from support import poison
from support.decoders import InProcessDecoder, decoder_limits, decoding
from support.image_files import declared_webp
from support.images import encode, gradient
from support.processes import ROOT
from support.scenes import page, textured
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests read /proc")

IMAGE = gradient(size=(60, 40))
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "PPM")


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with decoding(decoder_limits()) as pool:
        yield pool


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", poison.COMMAND)


def encoded(format_: str) -> bytes:
    InProcessDecoder().decode(IMAGE)  # Pillow learns HEIF with the first image.
    return encode(Image.effect_mandelbrot((160, 120), (-2.0, -1.5, 1.0, 1.5), 50).convert("RGB"), format_)


def error_of(decode: Callable[[bytes], object], data: bytes) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decode(data)
    return raised.value


def children() -> set[int]:
    lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    return {int(pid) for text in lists for pid in text.split()}


def idle_pids(pool: DecoderPool) -> list[int]:
    return [each.pid for each in pool._idle]


def test_thumbnail_is_made_where_a_request_wants_it() -> None:
    with decoding(decoder_limits(thumbnail_px=20)) as pool:
        webp = pool.decode(IMAGE, outputs=Output.SIGNATURES | Output.THUMBNAIL).thumbnail

        assert pool.decode(IMAGE).thumbnail is None
    assert webp is not None
    assert Image.open(io.BytesIO(webp)).size == (20, 13)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_decoded_without_files(pool: DecoderPool, format_: str) -> None:
    data = encoded(format_)

    image = pool.decode(data)

    expected = InProcessDecoder().decode(data)
    assert np.array_equal(image.signatures, expected.signatures)
    assert (image.width, image.height, image.pixels_sha256) == (160, 120, b"")


def test_a_featureless_image_has_a_hash_of_its_pixels(pool: DecoderPool) -> None:
    red, turned, blue = (
        Image.new("RGB", size, colour) for size, colour in [((40, 20), "red"), ((20, 40), "red"), ((40, 20), "blue")]
    )

    hashes = [pool.decode(encode(image, kind)).pixels_sha256 for image, kind in [(red, "PNG"), (red, "BMP")]]
    others = [pool.decode(encode(image)).pixels_sha256 for image in (turned, blue)]

    assert hashes[0] == hashes[1]
    assert len({*hashes, *others}) == 3


def test_errors_of_images_arrive_with_code_and_text(pool: DecoderPool) -> None:
    error = error_of(pool.decode, b"<html>")

    expected = error_of(InProcessDecoder().decode, b"<html>")
    assert (error.code, str(error)) == (expected.code, str(expected)) == ("not_an_image", str(expected))


def test_decoders_inherit_neither_secrets_nor_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCH_WEBHOOK_SECRET", "geheim")
    with socket.create_server(("127.0.0.1", 0)) as server, decoding(decoder_limits()) as pool:
        os.set_inheritable(server.fileno(), True)  # noqa: FBT003 - the standard library's interface
        pool.decode(IMAGE)
        [pid, *_] = idle_pids(pool)

        environment = Path(f"/proc/{pid}/environ").read_bytes()
        files = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}

    assert b"geheim" not in environment
    assert b"REDIS" not in environment
    assert {name.partition(":")[0] for name in files} == {"socket", "/dev/null"}


def test_decoders_limit_themselves(pool: DecoderPool) -> None:
    pool.decode(IMAGE)
    [pid, *_] = idle_pids(pool)

    limits = {name: resource.prlimit(pid, getattr(resource, name)) for name in ("RLIMIT_NOFILE", "RLIMIT_CORE")}
    memory, _ = resource.prlimit(pid, resource.RLIMIT_AS)

    assert limits == {"RLIMIT_NOFILE": (0, 0), "RLIMIT_CORE": (0, 0)}
    assert 1 << 30 < memory < 2 << 30
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def test_signals_for_the_whole_service_end_no_decoder(pool: DecoderPool) -> None:
    pool.decode(IMAGE)
    [pid, *_] = idle_pids(pool)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)

    pool.decode(IMAGE)
    assert pid in idle_pids(pool)


def test_an_image_beyond_the_memory_limit_fails() -> None:
    ends: list[ProcessEnd] = []
    with decoding(decoder_limits(memory_mib=64), on_end=ends.append) as pool:
        error = error_of(pool.decode, encode(Image.new("RGB", (4000, 3000)), "PPM"))
        pool.decode(IMAGE)

    assert error.code == "image_too_large_to_decode"
    assert "67,108,864 bytes" in str(error)
    assert "MATCH_DECODE_MEMORY_BYTES" in str(error)


@pytest.mark.parametrize("variant", [b"VP8 ", b"VP8L", b"VP8X"])
def test_the_largest_webp_is_not_a_broken_image(pool: DecoderPool, variant: bytes) -> None:
    error = error_of(pool.decode, declared_webp(variant, 16_383))

    assert error.code == "too_many_pixels"
    assert "16383 x 16383 pixels" in str(error)


def test_a_file_beyond_the_memory_limit_fails() -> None:
    ends: list[ProcessEnd] = []
    with decoding(decoder_limits(memory_mib=64), on_end=ends.append) as pool:
        error = error_of(pool.decode, bytes(100 << 20))
        pool.decode(IMAGE)

    assert error.code == "image_too_large_to_decode"
    assert ends == [ProcessEnd.OUT_OF_MEMORY]


@pytest.mark.usefixtures("poisoned")
def test_a_crash_fails_its_image_only() -> None:
    ends: list[ProcessEnd] = []
    with decoding(decoder_limits(), on_end=ends.append) as pool:
        error = error_of(pool.decode, IMAGE + poison.CRASHES)
        pool.decode(IMAGE)

    assert error.code == "decoder_crashed"
    assert ends == [ProcessEnd.CRASHED]


@pytest.mark.usefixtures("poisoned")
def test_a_hanging_decoder_is_ended_in_time() -> None:
    ends: list[ProcessEnd] = []
    with decoding(decoder_limits(timeout_s=0.5), on_end=ends.append) as pool:
        error = error_of(pool.decode, IMAGE + poison.HANGS)
        pool.decode(IMAGE)

    assert (error.code, str(error)) == (
        "decode_timeout",
        "decoding took longer than 0.5 s (MATCH_DECODE_TIMEOUT_S)",
    )
    assert ends == [ProcessEnd.TIMED_OUT]


@pytest.mark.usefixtures("poisoned")
def test_a_hanging_decoder_delays_no_other_client() -> None:
    before = children()
    with decoding(decoder_limits(timeout_s=20), processes=2) as pool, ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(pool.decode, IMAGE + poison.HANGS, client="one")
        wait_until(lambda: pool._slots._running["one"], "the image is being decoded")

        image = pool.decode(IMAGE, client="other")

        assert image.width == 60
        assert not hanging.done()
        wait_until(lambda: len(idle_pids(pool)) == 2, "the other two processes are idle")
        [pid] = children() - before - set(idle_pids(pool))
        os.kill(pid, signal.SIGSEGV)
        assert error_of(lambda _: hanging.result(), b"").code == "decoder_crashed"


def test_a_process_that_died_idle_fails_no_image() -> None:
    ends: list[ProcessEnd] = []
    with decoding(decoder_limits(), on_end=ends.append) as pool:
        wait_until(lambda: len(idle_pids(pool)) == 2, "both processes are ready")
        for pid in idle_pids(pool):
            os.kill(pid, signal.SIGKILL)
            wait_until(partial(has_ended, pid), "the process ended")

        assert pool.decode(IMAGE).width == 60

    assert ends == []


def test_closing_a_pool_ends_and_reaps_its_processes() -> None:
    with decoding(decoder_limits()) as pool:
        pool.decode(IMAGE)
        wait_until(lambda: len(idle_pids(pool)) == 2, "both processes are ready")
        pids = idle_pids(pool)

    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


ORPHANS = """
import sys
sys.path[:0] = ["tests"]
from unittest.mock import patch
from common.decoding import process
from support import poison
from support.decoders import decoder_limits
with patch.object(process, "COMMAND", poison.COMMAND):
    children = [process.DecoderProcess(decoder_limits(timeout_s=0.5)) for _ in range(2)]
assert all(child.wait_until_ready() for child in children)
hanging = b"P5 1 1 255\\n\\x00" + poison.HANGS
children[0]._send([b"\\1", hanging])
print(*(child.pid for child in children), flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_decoders_end_after_the_death_of_their_owner() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=ROOT, stdout=subprocess.PIPE) as owner:
        pids = [int(pid) for pid in owner.communicate()[0].split()]

    assert len(pids) == 2
    wait_until(lambda: all(has_ended(pid) for pid in pids), "both processes ended")


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.usefixtures("poisoned")
def test_a_bug_is_reported_with_its_traceback() -> None:
    with decoding(decoder_limits()) as pool:
        with pytest.raises(DecoderBug, match="ZeroDivisionError"):
            pool.decode(IMAGE + poison.BUG)

        assert pool.decode(IMAGE).width == 60


def test_a_decoder_that_never_starts_is_an_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", "raise SystemExit"))

    with decoding(decoder_limits(), wait_s=0.2) as pool, pytest.raises(Overloaded):
        pool.decode(IMAGE)


def test_local_features_arrive_as_they_were_extracted(pool: DecoderPool) -> None:
    data = encoded("PNG")
    outputs = Output.STORED_FEATURES | Output.QUERY_FEATURES | Output.SMALL_COPY

    image = pool.decode(data, outputs=outputs)

    expected = InProcessDecoder().decode(data, outputs=outputs)
    assert image.signatures == ()
    assert image.stored_features == expected.stored_features
    stored = LocalFeatures.decode(image.stored_features or b"")
    [features, own] = [each.query_features for each in (image, expected)]
    assert features is not None
    assert own is not None
    assert np.array_equal(features.words, own.words)
    assert features.verify(stored) is not None
    assert features.verify(stored) == own.verify(stored)
    [copy, expected_copy] = [each.small_copy for each in (image, expected)]
    assert copy is not None
    assert expected_copy is not None
    assert np.array_equal(copy.pixels, expected_copy.pixels)
    assert (copy.x, copy.step_y, copy.width) == (expected_copy.x, expected_copy.step_y, expected_copy.width)


def test_only_flat_images_have_a_small_copy(pool: DecoderPool) -> None:
    outputs = Output.SIGNATURES | Output.SMALL_COPY_IF_FLAT

    copies = [pool.decode(encode(image), outputs=outputs).small_copy for image in (textured(1), page(1))]

    assert [copy is None for copy in copies] == [True, False]


def test_an_image_without_local_features_has_empty_ones(pool: DecoderPool) -> None:
    image = pool.decode(encode(Image.new("RGB", (40, 20), "red")), outputs=~Output(0))

    assert LocalFeatures.decode(image.stored_features or b"").are_few
    assert image.query_features is not None
    assert len(image.query_features.words) == 0


def test_local_features_fit_into_the_smallest_memory_limit() -> None:
    outputs = Output.SIGNATURES | Output.QUERY_FEATURES
    large = Image.effect_noise((190, 130), 80).resize((1900, 1300)).convert("RGB")
    with decoding(decoder_limits(memory_mib=64)) as pool:
        image = pool.decode(encode(large, "JPEG"), outputs=outputs)

    assert image.query_features is not None
    assert len(image.query_features.words) > 500
