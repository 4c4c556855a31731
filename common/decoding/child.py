"""The decoder process: decodes the images that arrive on its standard input, one after another.

    python -m common.decoding.child LIMITS

Standard input is a socket, which carries the replies as well. The process ends when the other end is closed. No other
process imports the decoder.
"""

import contextlib
import hashlib
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path

import cv2
import numpy as np

from common.decoding.limits import OUT_OF_MEMORY, DecoderLimits
from common.decoding.protocol import (
    Kind,
    Output,
    SignedImage,
    error_parts,
    pack,
    receive_request,
    request,
    signed_parts,
)
from common.errors import ImageError
from common.images.decode import DecodedImage, Limits, decode
from common.images.flatness import are_featureless, is_flat
from common.images.local_features.drawing import is_drawn, shrink
from common.images.local_features.extraction import extract, extract_query
from common.images.signing import sign_all
from common.images.thumbnail import thumbnail

# The smallest image: a grey pixel. Decoding it makes the libraries load and open whatever they need later.
SMALLEST_IMAGE = b"P5 1 1 255\n\x00"
# After the other process has died nobody else ends a decoder that hangs.
ALARM_MARGIN_S = 5.0
STDIN, STDOUT, STDERR = 0, 1, 2


def serve(connection: socket.socket, limits: DecoderLimits) -> None:
    """Answer each request; return at the end of the connection."""
    reply(connection, [Kind.READY.value])
    while True:
        try:
            data, outputs = request(receive_request(connection))
        except (EOFError, ConnectionResetError):
            return
        signal.setitimer(signal.ITIMER_REAL, limits.timeout_s + ALARM_MARGIN_S)
        parts = answer(data, outputs, limits)
        del data
        signal.setitimer(signal.ITIMER_REAL, 0)
        reply(connection, parts)


def answer(data: bytes, outputs: Output, limits: DecoderLimits) -> list[bytes]:
    """Return the reply to a request."""
    try:
        image = decode(data, decode_limits(limits))
        return signed_parts(signed(image, outputs, thumbnail_px=limits.thumbnail_px))
    except ImageError as error:
        return error_parts(error)
    except MemoryError:
        raise
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError from error
        return bug()
    except Exception:  # noqa: BLE001 - the other process logs it
        return bug()


def bug() -> list[bytes]:
    """Return the reply with the exception that is being handled."""
    return [Kind.BUG.value, traceback.format_exc().encode()]


def signed(image: DecodedImage, outputs: Output = Output.SIGNATURES, *, thumbnail_px: int = 0) -> SignedImage:
    """Return the results for a decoded image."""
    pixels, width, height = image.pixels, image.width, image.height
    signatures = sign_all(pixels) if Output.SIGNATURES in outputs else ()
    needs_small_copy = Output.SMALL_COPY in outputs or (
        Output.SMALL_COPY_IF_FLAT in outputs
        and (any(map(is_flat, signatures)) or is_drawn(np.ascontiguousarray(pixels[::4, ::4, 1])))
    )
    return SignedImage(
        signatures=signatures,
        width=width,
        height=height,
        pixels_sha256=hash_pixels(image) if signatures and are_featureless(signatures) else b"",
        stored_features=extract(pixels, width=width, height=height).encode()
        if Output.STORED_FEATURES in outputs
        else None,
        query_features=extract_query(pixels, width=width, height=height) if Output.QUERY_FEATURES in outputs else None,
        small_copy=shrink(pixels, width=width, height=height) if needs_small_copy else None,
        thumbnail=thumbnail(pixels, thumbnail_px) if Output.THUMBNAIL in outputs else None,
    )


def hash_pixels(image: DecodedImage) -> bytes:
    """Return a hash of the size and the pixels."""
    height, width, _ = image.pixels.shape
    return hashlib.sha256(struct.pack("<II", width, height) + image.pixels.tobytes()).digest()


def decode_limits(limits: DecoderLimits) -> Limits:
    """Return the decoder's limits."""
    return Limits(
        pixels=limits.pixels,
        jpeg_pixels=limits.jpeg_pixels,
        draft_px=limits.draft_px,
        memory_bytes=limits.memory_bytes,
    )


def reply(connection: socket.socket, parts: list[bytes]) -> None:
    """Send a reply; nobody may wait for it any more."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(b"".join([pack(parts), *parts]))


def confine(limits: DecoderLimits) -> None:
    """Limit this process: its memory, no files, no core dumps, no output."""
    silent = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (STDOUT, STDERR):
        os.dup2(silent, descriptor)
    os.close(silent)
    if sys.platform == "linux":
        # Elsewhere the kernel does not enforce the limit.
        address_space = virtual_bytes() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def virtual_bytes() -> int:
    """Return the size of this process's address space; Linux only."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def main(argument: str) -> None:
    """Prepare the libraries, then serve."""
    # A signal for the whole process group or service is for the other process, which finishes its images first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    limits = DecoderLimits.from_json(argument)
    answer(SMALLEST_IMAGE, ~Output(0), limits)
    connection = socket.socket(fileno=STDIN)
    confine(limits)
    try:
        serve(connection, limits)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main(sys.argv[1])
