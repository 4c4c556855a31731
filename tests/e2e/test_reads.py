"""Searches, comparisons, lists and records by filepath and metadata, on both stores, over HTTP."""

import hashlib
import json
from typing import Any

import pytest

from support.index_servers import STACKS
from support.waiting import wait_until

Bytes = dict[str, bytes]


@pytest.fixture(scope="module", params=["shared_stack", *STACKS])
def filled(request: pytest.FixtureRequest, photographs: Bytes) -> Any:
    """All example images are stored; the metadata contain their name and whether it is short."""
    stack = request.getfixturevalue(request.param)
    stack.delete_all()
    for name, data in photographs.items():
        about = {"name": name, "file": {"short": len(name) < 10, "size": len(data)}}
        stack.add(name, data, metadata=json.dumps(about))
    # On Elasticsearch a deletion is visible after the refresh interval.
    wait_until(lambda: stack.ok("GET", "/count") == [len(photographs)])
    return stack


def test_just_added_image_is_searched_by_its_filepath(filled: Any, photographs: Bytes) -> None:
    name, data = next(iter(photographs.items()))
    added = filled.call("POST", "/add", data={"filepath": "copy"}, files={"image": data})
    wait_until(lambda: filled.ok("GET", added.headers["Location"])[0]["state"] == "succeeded")

    matches = filled.ok("POST", "/search", data={"filepath": "copy"})

    filled.ok("DELETE", "/delete", data={"filepath": "copy"})
    wait_until(lambda: filled.ok("GET", "/count") == [len(photographs)])
    assert [(match["filepath"], match["score"]) for match in matches[:2]] == [(name, 100.0), ("copy", 100.0)]


def test_fast_search_by_filepath_equals_search_by_upload(filled: Any, photographs: Bytes) -> None:
    name, data = next(iter(photographs.items()))
    options = {"mode": "fast", "min_score": "0", "limit": "5"}

    by_filepath = filled.ok("POST", "/search", data={"filepath": name, **options})

    assert by_filepath == filled.search(data, **options)


def test_stored_images_are_compared_like_uploads(filled: Any, photographs: Bytes) -> None:
    (name, data), (other, other_data) = list(photographs.items())[:2]

    stored = filled.ok("POST", "/compare", data={"filepath1": name, "filepath2": other})
    mixed = filled.ok("POST", "/compare", data={"filepath1": name}, files={"image2": other_data})

    assert stored == mixed == filled.ok("POST", "/compare", files={"image1": data, "image2": other_data})


def test_filter_applies_to_searches_lists_and_counts(filled: Any, photographs: Bytes) -> None:
    short = [name for name in photographs if len(name) < 10]
    only = {"filter[file.short]": "true"}

    matches = filled.ok("POST", "/search", data={"filepath": next(iter(photographs)), "min_score": "0", **only})

    assert sorted(match["filepath"] for match in matches) == sorted(short)
    assert filled.ok("GET", "/list", params=only) == short
    assert filled.ok("GET", "/list", params=only | {"offset": "1"}) == short[1:]
    assert filled.ok("GET", "/count", params=only) == [len(short)]
    assert filled.ok("GET", "/count", params=only | {"filter[name]": short[0]}) == [1]


def test_pages_by_cursor_list_every_image_once(filled: Any, photographs: Bytes) -> None:
    listed, cursor = [], ""

    while cursor is not None:
        page = filled.call("GET", "/list", params={"cursor": cursor, "limit": "4"}).json()
        listed += page["result"]
        cursor = page["cursor"]

    assert listed == list(photographs)


def test_record_is_returned_by_its_filepath(filled: Any, photographs: Bytes) -> None:
    name, data = next(iter(photographs.items()))

    [record] = filled.ok("GET", "/images", params={"filepath": name})

    assert (record["filepath"], record["metadata"]["file"]["size"]) == (name, len(data))
    assert (record["featureless"], record["width"] > 0, record["height"] > 0) == (False, True, True)
    assert (record["sha256"], record["url"]) == (hashlib.sha256(data).hexdigest(), None)


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [("POST", "/search", "filepath"), ("POST", "/compare", "filepath1"), ("GET", "/images", "filepath")],
)
def test_unknown_filepath_is_404(filled: Any, method: str, path: str, field: str) -> None:
    where = "params" if method == "GET" else "data"
    other = {"filepath2": "absent"} if path == "/compare" else {}

    answer = filled.call(method, path, **{where: {field: "absent", **other}})

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (404, "unknown_filepath", field)


def test_many_are_deleted_at_once_and_the_others_stay(filled: Any, photographs: Bytes) -> None:
    before = filled.ok("GET", "/list", params={"limit": "1000"})
    copies = [f"copy {number}" for number in range(3)]
    for copy in copies:
        filled.add(copy, next(iter(photographs.values())))

    filled.ok("DELETE", "/delete", data={f"filepaths[{number}]": copy for number, copy in enumerate(copies)})

    wait_until(lambda: filled.ok("GET", "/list", params={"limit": "1000"}) == before)
