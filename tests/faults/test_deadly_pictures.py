"""Pictures that end or hold whoever decodes them: given up after three deaths, and no other picture with them."""

import struct
import zlib
from pathlib import Path

import pytest

from support import poison
from support.accounts import Item
from support.processes import ROOT
from support.service import peak_mib
from support.stage import Stage, size


@pytest.fixture
def limits(limits: dict[str, str]) -> dict[str, str]:
    # What was decoded waits long for its write, so that a death meanwhile takes many along.
    return limits | {"MATCH_BULK_LINGER_S": "1"}


@pytest.mark.parametrize(
    ("ending", "name", "batch"), [(poison.KILLS, "kill", False), (poison.HANGS, "hold", True)], ids=["kill", "hold"]
)
def test_a_picture_that_ends_its_worker_is_given_up_and_takes_no_other_along(
    stage: Stage, ending: bytes, name: str, *, batch: bool
) -> None:
    victims, bystanders = size(1, 3), size(60, 600)
    client = stage.client()
    items = stage.items(bystanders)
    for n in range(victims):
        item = Item(f"deadly-{n}", n, f"{stage.images.url}/{n}+{ending.hex()}")
        items.insert((n + 1) * bystanders // (victims + 2), item)
    accepted = client.add_batch(items) if batch else client.add_all(items)
    stage.service.start_worker(str(Path(poison.__file__)), PYTHONPATH=str(ROOT))

    way = "in a batch" if batch else "among others"
    found = stage.finish(f"{victims} pictures {way} that {name} whoever decodes them", accepted)

    assert (found.stored, found.failed) == (bystanders, victims)
    for one in accepted:
        if "+" in one.item.url:
            assert client.task(one.task_id)["error"]["code"] == "decoder_crashed"


def test_pictures_that_would_eat_the_memory_are_refused_with_a_reason(stage: Stage) -> None:
    bombs, bystanders = size(2, 20), size(20, 200)
    client = stage.client()
    items = [
        *(Item(f"bomb-{n}", 0, data=png_bomb(20_000 + n)) for n in range(bombs)),
        *stage.uploads(bystanders),
    ]
    worker = stage.service.start_worker()
    accepted = client.add_all(items)

    found = stage.finish(f"{bombs} pictures of 400 megapixels in a few kilobytes", accepted)

    assert (found.stored, found.failed) == (bystanders, bombs)
    assert {client.task(one.task_id)["error"]["code"] for one in accepted[:bombs]} == {"too_many_pixels"}
    assert peak_mib(worker.pid) < 400
    assert stage.service.starts(worker) == 1


def png_bomb(side: int) -> bytes:
    """Return a whole PNG of side * side white pixels: a little file that unpacks to more than a gigabyte."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
