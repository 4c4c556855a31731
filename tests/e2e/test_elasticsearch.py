"""The whole service on a real Elasticsearch: added, found, replaced, deleted."""

import io
from typing import Any

import pytest
from PIL import Image, ImageOps

from support.waiting import wait_until

Bytes = dict[str, bytes]


@pytest.fixture
def stack(elastic_stack: Any) -> Any:
    """An empty collection."""
    elastic_stack.empty()
    return elastic_stack


def changed(data: bytes) -> bytes:
    """Return the picture shrunken, turned, mirrored, inverted and recompressed."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    picture = ImageOps.invert(ImageOps.mirror(picture.reduce(2)).rotate(90, expand=True))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=40)
    return out.getvalue()


def test_what_wait_reported_as_stored_is_found_at_once_by_a_changed_copy(stack: Any, photographs: Bytes) -> None:
    for name, data in photographs.items():
        stack.add(name, data)

        matches = stack.search(changed(data), all_orientations="true")

        assert matches[0]["filepath"] == name


def test_the_newest_picture_replaces_the_older_and_a_deleted_one_is_gone(stack: Any, photographs: Bytes) -> None:
    first, second, third = list(photographs.values())[:3]
    stack.add("replaced", first)
    stack.add("replaced", second, metadata='{"version": 2}')
    stack.add("deleted", third)

    stack.ok("DELETE", "/delete", data={"filepath": "deleted"})

    wait_until(lambda: stack.ok("GET", "/list") == ["replaced"])
    assert stack.search(first) == stack.search(third) == []
    assert stack.search(second)[0]["metadata"] == {"version": 2}


def test_it_says_that_it_is_ready(stack: Any) -> None:
    checks = stack.call("GET", "/readyz").json()["checks"]

    assert (checks["store"]["reads"], checks["store"]["writes"], checks["redis"]["ok"]) == (True, True, True)
