"""Decoders for tests: in this process, or in processes with short limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.decoding.child import signed
from common.decoding.limits import DecoderLimits
from common.decoding.pool import DecoderPool
from common.decoding.protocol import Output, SignedImage
from common.images.decode import DEFAULT_LIMITS, Limits, decode

MIB = 1024 * 1024


class InProcessDecoder:
    """A Decoder without processes; `clients` lists whose images it decoded."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.clients: list[str] = []

    def decode(self, data: bytes, *, outputs: Output = Output.SIGNATURES, client: str = "") -> SignedImage:
        self.clients.append(client)
        return signed(decode(data, self.limits), outputs, thumbnail_px=256)


def decoder_limits(*, timeout_s: float = 30, memory_mib: int = 1024, thumbnail_px: int = 0) -> DecoderLimits:
    return DecoderLimits(
        pixels=50_000_000,
        jpeg_pixels=200_000_000,
        draft_px=1024,
        timeout_s=timeout_s,
        memory_bytes=memory_mib * MIB,
        thumbnail_px=thumbnail_px,
    )


@contextmanager
def decoding(limits: DecoderLimits, **options: Any) -> Iterator[DecoderPool]:
    """Run a pool of one process until the end of the `with`."""
    pool = DecoderPool(limits, **{"processes": 1, "per_client": 1, "queue": 100, "wait_s": 30.0, **options})
    try:
        yield pool
    finally:
        pool.close()
