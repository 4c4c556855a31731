"""The whole service over HTTP: an added image is found again by changed copies."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageOps

from support.images import encode
from support.waiting import wait_until

Bytes = dict[str, bytes]


def changed(data: bytes, *changes: Callable[[Image.Image], Image.Image]) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    for change in changes:
        image = change(image)
    return encode(image, "JPEG", quality=30)


def shrink(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def rotate(degrees: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.rotate(degrees, expand=True)


CHANGES = {
    "recompressed": (),
    "shrunken": (shrink,),
    "rotated": (rotate(90),),
    "upside down": (rotate(180),),
    "mirrored": (ImageOps.mirror,),
    "inverted": (ImageOps.invert,),
    "rotated, mirrored, inverted and shrunken": (rotate(270), ImageOps.mirror, ImageOps.invert, shrink),
}


@pytest.fixture(scope="module")
def filled(shared_stack: Any, photographs: Bytes) -> Any:
    """All example images are stored."""
    shared_stack.delete_all()
    for name, data in photographs.items():
        shared_stack.add(name, data, metadata=json.dumps({"name": name}))
    return shared_stack


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_copy_finds_its_original_first(filled: Any, photographs: Bytes, change: Any) -> None:
    name, data = next(iter(photographs.items()))

    matches = filled.search(changed(data, *change), all_orientations="true")

    assert (matches[0]["filepath"], matches[0]["metadata"]) == (name, {"name": name})
    assert matches[0]["score"] > 57.1


def test_rotated_copy_needs_all_orientations(filled: Any, photographs: Bytes) -> None:
    name, data = next(iter(photographs.items()))

    matches = filled.search(changed(data, rotate(90)), all_orientations="false")

    assert name not in [match["filepath"] for match in matches]


def test_search_accepts_a_url(filled: Any, photographs: Bytes, image_server: str) -> None:
    name = next(iter(photographs))

    matches = filled.ok("POST", "/search", data={"url": f"{image_server}/{name}"})

    assert (matches[0]["filepath"], matches[0]["score"], matches[0]["orientation"]) == (name, 100.0, "original")


def test_limit_and_offset_select_a_part_of_the_matches(filled: Any, photographs: Bytes) -> None:
    data = next(iter(photographs.values()))
    whole = filled.search(data, min_score="0", limit="8")

    part = filled.search(data, min_score="0", limit="3", offset="2")

    assert len(whole) > 5
    assert part == whole[2:5]


def test_added_url_is_downloaded_and_found(stack: Any, photographs: Bytes, image_server: str) -> None:
    name, data = next(iter(photographs.items()))

    stack.ok("POST", "/add", data={"url": f"{image_server}/{name}", "filepath": "by url", "wait": "30"})

    assert stack.search(data)[0]["filepath"] == "by url"


def test_add_without_wait_reports_by_its_task(stack: Any, photographs: Bytes) -> None:
    data = next(iter(photographs.values()))

    accepted = stack.call("POST", "/add", data={"filepath": "cat.jpg"}, files={"image": data})

    assert accepted.status_code == 202
    assert accepted.json()["task"]["state"] == "pending"
    task = wait_for_end(stack, accepted.headers["Location"])
    assert (task["state"], task["error"], task["attempts"]) == ("succeeded", None, 1)
    assert stack.search(data)[0]["filepath"] == "cat.jpg"


def test_prefer_wait_is_applied(stack: Any, photographs: Bytes) -> None:
    data = next(iter(photographs.values()))

    answer = stack.call(
        "POST", "/add", data={"filepath": "a"}, files={"image": data}, headers={"Prefer": "respond-async, wait=30"}
    )

    assert (answer.status_code, answer.json()["task"]["state"]) == (200, "succeeded")


def test_newest_image_of_a_filepath_replaces_the_older(stack: Any, photographs: Bytes) -> None:
    first, second = list(photographs.values())[:2]
    stack.add("same", first)

    stack.add("same", second, metadata='{"version": 2}')

    assert stack.ok("GET", "/count") == [1]
    assert [match["filepath"] for match in stack.search(first)] == []
    assert stack.search(second)[0]["metadata"] == {"version": 2}


def test_deletion_removes_only_its_filepath(stack: Any, photographs: Bytes) -> None:
    data = next(iter(photographs.values()))
    names = ["cat.jpg", "CAT.jpg", "dir/cat.jpg", "http://a.com/x/cat.jpg?v=1"]
    for name in names:
        stack.add(name, data)

    stack.ok("DELETE", "/delete", data={"filepath": "cat.jpg"})

    assert stack.ok("GET", "/list") == names[1:]
    assert sorted(match["filepath"] for match in stack.search(data)) == sorted(names[1:])


def test_deleting_an_absent_image_succeeds(stack: Any) -> None:
    assert stack.ok("DELETE", "/delete", params={"filepath": "never there"}) == []


def test_add_add_delete_without_waiting_leaves_nothing(stack: Any, photographs: Bytes) -> None:
    first, second = list(photographs.values())[:2]
    tasks = [
        stack.call("POST", "/add", data={"filepath": "brief"}, files={"image": data}).headers["Location"]
        for data in (first, second)
    ]

    stack.ok("DELETE", "/delete", data={"filepath": "brief"})

    states = {wait_for_end(stack, task)["state"] for task in tasks}
    assert states <= {"succeeded", "superseded"}
    assert stack.ok("GET", "/count") == [0]


def test_list_is_in_order_of_sequence_numbers(stack: Any, photographs: Bytes) -> None:
    names = [f"{number:02}" for number in range(7)]
    for name, data in zip(names, photographs.values(), strict=False):
        stack.add(name, data)

    assert stack.ok("GET", "/count") == stack.ok("POST", "/count") == [7]
    assert stack.ok("GET", "/list", params={"offset": "2", "limit": "3"}) == names[2:5]
    assert stack.ok("POST", "/list", data={"offset": "5"}) == names[5:]


def test_compare_scores_copies_high_and_unrelated_images_low(stack: Any, photographs: Bytes, image_server: str) -> None:
    (name, data), (_, other) = list(photographs.items())[:2]

    [same] = stack.ok("POST", "/compare", data={"url1": f"{image_server}/{name}"}, files={"image2": changed(data)})
    [unrelated] = stack.ok("POST", "/compare", files={"image1": data, "image2": other})

    assert same["score"] > 85
    assert unrelated["score"] < 55


def test_featureless_image_is_stored_and_never_found(stack: Any) -> None:
    blank = encode(Image.new("RGB", (64, 64), "white"))

    added = stack.call("POST", "/add", data={"filepath": "blank", "wait": "30"}, files={"image": blank}).json()
    search = stack.call("POST", "/search", data={"min_score": "0"}, files={"image": blank}).json()
    comparison = stack.call("POST", "/compare", files={"image1": blank, "image2": blank}).json()

    assert {(one["status"], one["code"]) for one in (added, search, comparison)} == {("warn", "featureless")}
    assert (added["task"]["state"], search["result"]) == ("succeeded", [])
    assert [result["score"] for result in comparison["result"]] == [100.0]
    assert stack.ok("GET", "/list") == ["blank"]
    assert stack.ok("GET", "/images", params={"filepath": "blank"})[0]["featureless"] is True


def test_stored_images_survive_a_restart(start_stack: Callable[..., Any], photographs: Bytes, tmp_path: Any) -> None:
    name, data = next(iter(photographs.items()))
    before = start_stack(tmp_path)
    before.add(name, data)

    status = before.stop()

    assert status == 0
    assert start_stack(tmp_path).search(changed(data))[0]["filepath"] == name


def wait_for_end(stack: Any, location: str) -> dict[str, Any]:
    def ended() -> list[dict[str, Any]]:
        return [task for task in stack.ok("GET", location) if task["state"] not in {"pending", "running"}]

    [task] = wait_until(ended, f"{location} ends")
    return task
