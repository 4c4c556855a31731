"""What is stored is searched, compared, listed and told by filepath and metadata, on both stores, over HTTP."""

import json
from typing import Any

import pytest

from support.waiting import wait_until

Bytes = dict[str, bytes]


@pytest.fixture(scope="module", params=["shared_stack", "elastic_stack"])
def filled(request: pytest.FixtureRequest, photographs: Bytes) -> Any:
    """All the example pictures are stored, the metadata tell their name and whether it is short."""
    stack = request.getfixturevalue(request.param)
    stack.empty()
    for name, data in photographs.items():
        about = {"name": name, "file": {"short": len(name) < 10, "size": len(data)}}
        stack.add(name, data, metadata=json.dumps(about))
    # On Elasticsearch a deletion shows within the refresh interval.
    wait_until(lambda: stack.ok("GET", "/count") == [len(photographs)])
    return stack


def test_what_was_just_added_is_searched_by_its_filepath(filled: Any, photographs: Bytes) -> None:
    name, data = next(iter(photographs.items()))
    added = filled.call("POST", "/add", data={"filepath": "copy"}, files={"image": data})
    wait_until(lambda: filled.ok("GET", added.headers["Location"])[0]["state"] == "succeeded")

    matches = filled.ok("POST", "/search", data={"filepath": "copy"})

    filled.ok("DELETE", "/delete", data={"filepath": "copy"})
    wait_until(lambda: filled.ok("GET", "/count") == [len(photographs)])
    assert [(match["filepath"], match["score"]) for match in matches[:2]] == [(name, 100.0), ("copy", 100.0)]


def test_a_filepath_finds_what_its_picture_finds(filled: Any, photographs: Bytes) -> None:
    name, data = next(iter(photographs.items()))
    options = {"min_score": "0", "limit": "5"}

    by_filepath = filled.ok("POST", "/search", data={"filepath": name, **options})

    assert by_filepath == filled.search(data, **options)


def test_stored_pictures_are_compared_as_uploads_are(filled: Any, photographs: Bytes) -> None:
    (name, data), (other, other_data) = list(photographs.items())[:2]

    stored = filled.ok("POST", "/compare", data={"filepath1": name, "filepath2": other})
    mixed = filled.ok("POST", "/compare", data={"filepath1": name}, files={"image2": other_data})

    assert stored == mixed == filled.ok("POST", "/compare", files={"image1": data, "image2": other_data})


def test_a_filter_keeps_searches_lists_and_counts_to_what_fits(filled: Any, photographs: Bytes) -> None:
    short = [name for name in photographs if len(name) < 10]
    only = {"filter[file.short]": "true"}

    found = filled.ok("POST", "/search", data={"filepath": next(iter(photographs)), "min_score": "0", **only})

    assert sorted(match["filepath"] for match in found) == sorted(short)
    assert filled.ok("GET", "/list", params=only) == short
    assert filled.ok("GET", "/list", params=only | {"offset": "1"}) == short[1:]
    assert filled.ok("GET", "/count", params=only) == [len(short)]
    assert filled.ok("GET", "/count", params=only | {"filter[name]": short[0]}) == [1]


def test_a_walk_by_cursor_meets_every_picture_once(filled: Any, photographs: Bytes) -> None:
    met, cursor = [], ""

    while cursor is not None:
        page = filled.call("GET", "/list", params={"cursor": cursor, "limit": "4"}).json()
        met += page["result"]
        cursor = page["cursor"]

    assert met == list(photographs)


def test_a_record_is_told_by_its_filepath(filled: Any, photographs: Bytes) -> None:
    name, data = next(iter(photographs.items()))

    [record] = filled.ok("GET", "/images", params={"filepath": name})

    assert (record["filepath"], record["metadata"]["file"]["size"]) == (name, len(data))
    assert (record["featureless"], record["width"] > 0, record["height"] > 0) == (False, True, True)


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [("POST", "/search", "filepath"), ("POST", "/compare", "filepath1"), ("GET", "/images", "filepath")],
)
def test_what_is_not_stored_is_told(filled: Any, method: str, path: str, field: str) -> None:
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
