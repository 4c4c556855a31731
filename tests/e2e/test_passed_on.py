"""A photograph of the collection, cropped, captioned and in a screenshot of a phone, is found first, on every store."""

import io
from typing import Any

import pytest
from PIL import Image

from support.images import encode
from support.index_servers import STACKS
from support.scenes import cropped, passed_on, textured

# Those with texture; the rocket before a dark sky has little.
NAMES = ("astronaut.jpg", "chelsea.jpg", "windmill.jpg")


@pytest.fixture(params=["stack", *STACKS])
def stack_of_store(request: pytest.FixtureRequest) -> Any:
    stack = request.getfixturevalue(request.param)
    stack.delete_all()
    return stack


def test_screenshot_of_a_captioned_crop_is_found(stack_of_store: Any, photographs: dict[str, bytes]) -> None:
    collection = {name: photographs[name] for name in NAMES} | {"drawn.png": encode(textured(1))}
    for name, data in collection.items():
        stack_of_store.add(name, data)

    results = {}
    for name, data in collection.items():
        with Image.open(io.BytesIO(data)) as image:
            screenshot = encode(passed_on(image.convert("RGB")), "JPEG", quality=80)
        fast = stack_of_store.search(screenshot, mode="fast")
        [first, *rest] = stack_of_store.search(screenshot)
        results[name] = (fast, first["filepath"], first["matched_by"], rest)

    assert results == {name: ([], name, "local_features", []) for name in collection}


def test_stored_part_is_found_by_its_filepath(stack_of_store: Any, photographs: dict[str, bytes]) -> None:
    data = photographs["chelsea.jpg"]
    with Image.open(io.BytesIO(data)) as image:
        part = encode(cropped(image.convert("RGB")), "JPEG", quality=80)
    stack_of_store.add("whole.jpg", data, metadata='{"kind": "whole"}')
    stack_of_store.add("part.jpg", part)

    matches = stack_of_store.ok(
        "POST", "/search", data={"filepath": "part.jpg", "mode": "thorough", "filter[kind]": "whole"}
    )

    assert [(match["filepath"], match["matched_by"]) for match in matches] == [("whole.jpg", "local_features")]


def test_record_and_comparison_report_local_features(stack_of_store: Any, photographs: dict[str, bytes]) -> None:
    data = photographs["coffee.jpg"]
    stack_of_store.add("coffee.jpg", data)
    with Image.open(io.BytesIO(data)) as image:
        screenshot = encode(passed_on(image.convert("RGB")))

    [record] = stack_of_store.ok("GET", "/images", params={"filepath": "coffee.jpg"})
    [result] = stack_of_store.ok("POST", "/compare", data={"filepath2": "coffee.jpg"}, files={"image1": screenshot})

    assert record["few_features"] is False
    assert result["matched_by"] == "local_features"
    assert 0 < result["transform"]["m11"] < 4
