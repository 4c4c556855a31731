"""Images that crash or hang their decoder: they fail at once, and other images are stored."""

import struct
import zlib
from pathlib import Path

import pytest

from support import poison
from support.adds import Item
from support.deployment import Deployment, size
from support.service import peak_mib


@pytest.fixture
def timeouts(timeouts: dict[str, str]) -> dict[str, str]:
    # Decoded images wait long for their write, so that a crash loses many of them.
    return timeouts | {"MATCH_BULK_LINGER_S": "1"}


@pytest.mark.parametrize(
    ("suffix", "effect", "code", "batch"),
    [(poison.CRASHES, "crash", "decoder_crashed", False), (poison.HANGS, "hang", "decode_timeout", True)],
    ids=["crash", "hang"],
)
def test_poison_images_fail_and_other_images_are_stored(
    deployment: Deployment, suffix: bytes, effect: str, code: str, *, batch: bool
) -> None:
    victims, bystanders = size(1, 3), size(60, 600)
    client = deployment.client()
    items = deployment.items(bystanders)
    for n in range(victims):
        item = Item(f"poison-{n}", n, f"{deployment.image_server.url}/{n}+{suffix.hex()}")
        items.insert((n + 1) * bystanders // (victims + 2), item)
    accepted = client.add_batch(items) if batch else client.add_all(items)
    worker = deployment.service.start_worker(str(Path(poison.__file__)))

    kind = "in a batch" if batch else "among single adds"
    outcomes = deployment.finish(f"{victims} images {kind} that {effect} their decoder", accepted)

    assert (outcomes.stored, outcomes.failed) == (bystanders, victims), outcomes
    for add in accepted:
        if "+" in add.item.url:
            assert client.task(add.task_id)["error"]["code"] == code
    assert deployment.service.starts(worker) == 1


def test_decompression_bombs_fail_with_too_many_pixels(deployment: Deployment) -> None:
    bombs, bystanders = size(2, 20), size(20, 200)
    client = deployment.client()
    items = [
        *(Item(f"bomb-{n}", 0, data=png_bomb(20_000 + n)) for n in range(bombs)),
        *deployment.uploads(bystanders),
    ]
    worker = deployment.service.start_worker()
    accepted = client.add_all(items)

    outcomes = deployment.finish(f"{bombs} images of 400 megapixels in a few kilobytes", accepted)

    assert (outcomes.stored, outcomes.failed) == (bystanders, bombs), outcomes
    assert {client.task(add.task_id)["error"]["code"] for add in accepted[:bombs]} == {"too_many_pixels"}
    assert peak_mib(worker.pid) < 400
    assert deployment.service.starts(worker) == 1


def png_bomb(side: int) -> bytes:
    """Return a complete PNG of side * side white pixels: a small file that decodes to more than a gigabyte."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
