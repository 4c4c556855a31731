"""The whole service on a real index server: added, found, replaced, deleted."""

import io
from typing import Any

import pytest
from PIL import Image, ImageOps

from support.images import encode
from support.index_servers import STACKS
from support.waiting import wait_until

Bytes = dict[str, bytes]


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Any:
    """An empty collection."""
    stack = request.getfixturevalue(request.param)
    stack.delete_all()
    return stack


def changed(data: bytes) -> bytes:
    """Return the image shrunken, rotated, mirrored, inverted and recompressed."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return encode(ImageOps.invert(ImageOps.mirror(image.reduce(2)).rotate(90, expand=True)), "JPEG", quality=40)


def test_stored_image_is_found_at_once_by_copies(stack: Any, photographs: Bytes) -> None:
    for name, data in photographs.items():
        stack.add(name, data)

        matches = stack.search(changed(data), all_orientations="true")

        assert matches[0]["filepath"] == name


def test_newest_image_replaces_the_older_and_deletion_removes_it(stack: Any, photographs: Bytes) -> None:
    first, second, third = list(photographs.values())[:3]
    stack.add("replaced", first)
    stack.add("replaced", second, metadata='{"version": 2}')
    stack.add("deleted", third)

    stack.ok("DELETE", "/delete", data={"filepath": "deleted"})

    wait_until(lambda: stack.ok("GET", "/list") == ["replaced"])
    assert stack.search(first) == stack.search(third) == []
    assert stack.search(second)[0]["metadata"] == {"version": 2}


def test_readiness_reports_store_and_redis(stack: Any) -> None:
    checks = stack.call("GET", "/readyz").json()["checks"]

    assert (checks["store"]["reads"], checks["store"]["writes"], checks["redis"]["ok"]) == (True, True, True)
