"""Stored images: searches and comparisons by filepath, filters, lists, single records."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from common.images.decode import decode
from common.images.signature import Signature, sign
from common.store.base import Tombstone
from support.images import encode, gradient, upload
from support.records import FEATURELESS, record, signature
from support.records import record as record_of

PLAIN = encode(Image.new("RGB", (64, 64), "white"))


def store(memory_store: Any, **signatures: Signature) -> None:
    """Store signatures by filepath; the metadata contain the filepath and its length."""
    about = {name: {"name": name, "inside": {"size": len(name), "tags": ["a", name]}} for name in signatures}
    memory_store.put(
        [record(name, seq, one, metadata=about[name]) for seq, (name, one) in enumerate(signatures.items(), start=1)]
    )


def failure(answer: Any) -> tuple[int, str, str]:
    return answer.status_code, answer.json["code"], answer.json["field"]


def warning(answer: Any) -> tuple[int, str, str]:
    return answer.status_code, answer.json["status"], answer.json["code"]


def test_stored_image_is_searched_by_its_filepath(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), same=signature(1), other=signature(2))

    answer = client.post("/search", data={"filepath": "same"})

    assert [(match["filepath"], match["score"]) for match in answer.json["result"]] == [("a", 100.0), ("same", 100.0)]


def test_search_by_an_unknown_filepath_is_404(client: FlaskClient) -> None:
    assert failure(client.post("/search", data={"filepath": "a"})) == (404, "unknown_filepath", "filepath")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"filepath": "a", "url": "http://example.org/a.jpg"}, "filepath"),
        ({"filepath": ""}, "filepath"),
        ({}, "image"),
    ],
)
def test_search_accepts_exactly_one_image(client: FlaskClient, data: dict[str, str], field: str) -> None:
    answer = client.post("/search", data=data)

    assert (answer.status_code, answer.json["field"]) == (400, field)


def test_search_is_filtered_by_metadata(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), b=signature(1), cc=signature(1))

    by_name = client.post("/search", data={"filepath": "a", "filter[name]": "b"})
    by_both = client.post("/search", data={"filepath": "a", "filter[inside.size]": "1", "filter[inside.tags]": "a"})

    assert [match["filepath"] for match in by_name.json["result"]] == ["b"]
    assert [match["filepath"] for match in by_both.json["result"]] == ["a", "b"]


def test_min_score_replaces_the_cutoff(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), far=signature(2))

    by_default = client.post("/search", data={"filepath": "a"})
    all_of_them = client.post("/search", data={"filepath": "a", "min_score": "0", "all_orientations": "false"})

    assert [match["filepath"] for match in by_default.json["result"]] == ["a"]
    assert [match["filepath"] for match in all_of_them.json["result"]] == ["a", "far"]


def test_stored_images_are_compared_with_each_other(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), same=signature(1), opposite=-signature(1))

    same = client.post("/compare", data={"filepath1": "a", "filepath2": "same"})
    opposite = client.post("/compare", data={"filepath1": "a", "filepath2": "opposite"})

    assert same.json["result"] == [{"score": 100.0, "matched_by": "signature"}]
    assert opposite.json["result"] == [{"score": 0.0, "matched_by": "signature"}]


def test_stored_image_is_compared_with_an_upload(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, gradient=sign(decode(gradient()).pixels))

    answer = client.post("/compare", data={"image1": upload(), "filepath2": "gradient"})

    assert answer.json["result"] == [{"score": 100.0, "matched_by": "signature"}]


def test_featureless_image_matches_only_itself(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, white=FEATURELESS, black=FEATURELESS, photo=signature(1))

    answers = [
        client.post("/compare", data={"filepath1": "white", "filepath2": other})
        for other in ("white", "black", "photo")
    ]

    assert [answer.json["result"][0]["score"] for answer in answers] == [100.0, 0.0, 0.0]
    assert {warning(answer) for answer in answers} == {(200, "warn", "featureless")}


@pytest.mark.parametrize("source", [{"filepath": "plain"}, {"image": None}])
def test_search_by_a_featureless_image_warns(client: FlaskClient, memory_store: Any, source: dict[str, Any]) -> None:
    store(memory_store, plain=FEATURELESS, photo=signature(1))
    data = {name: value or upload(PLAIN) for name, value in source.items()}

    answer = client.post("/search", data={**data, "min_score": "0"})

    assert warning(answer) == (200, "warn", "featureless")
    assert answer.json["result"] == []
    assert "without features" in answer.json["error"][0]


@pytest.mark.parametrize(("other", "score"), [("white", 100.0), ("black", 0.0)])
def test_comparison_of_featureless_uploads_warns(client: FlaskClient, other: str, score: float) -> None:
    data = {"image1": upload(PLAIN), "image2": upload(encode(Image.new("RGB", (64, 64), other)))}

    answer = client.post("/compare", data=data)

    assert warning(answer) == (200, "warn", "featureless")
    assert answer.json["result"] == [{"score": score, "matched_by": "signature"}]


def test_images_with_features_have_no_warning(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), b=signature(2))

    answers = [
        client.post("/search", data={"filepath": "a"}),
        client.post("/compare", data={"filepath1": "a", "filepath2": "b"}),
    ]

    assert [(answer.json["status"], answer.json["error"], "code" in answer.json) for answer in answers] == [
        ("ok", [], False),
        ("ok", [], False),
    ]


@pytest.mark.parametrize("field", ["filepath1", "filepath2"])
def test_comparison_with_an_unknown_filepath_names_its_field(
    client: FlaskClient, memory_store: Any, field: str
) -> None:
    store(memory_store, a=signature(1))

    answer = client.post("/compare", data={"filepath1": "a", "filepath2": "a"} | {field: "absent"})

    assert failure(answer) == (404, "unknown_filepath", field)


def test_record_is_returned_with_all_fields(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, plain=FEATURELESS)
    about = {"name": "a", "inside": {"size": 1, "tags": ["a", "a"]}}
    memory_store.put([record_of("a", 1, metadata=about, sha256=bytes(range(32)), url="http://example.org/a?v=1")])

    [record] = client.get("/images", query_string={"filepath": "a"}).json["result"]
    [plain] = client.get("/images", query_string={"filepath": "plain"}).json["result"]

    assert record == {
        "collection": "default",
        "filepath": "a",
        "metadata": {"name": "a", "inside": {"size": 1, "tags": ["a", "a"]}},
        "added": "2023-11-14T22:13:20.001Z",
        "width": 640,
        "height": 480,
        "featureless": False,
        "few_features": None,
        "url": "http://example.org/a?v=1",
        "sha256": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    }
    assert (plain["featureless"], plain["url"], plain["sha256"]) == (True, None, None)


def test_unknown_or_deleted_record_is_404(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([Tombstone(filepath="gone", seq=1, added=0)])

    for filepath in ("never", "gone"):
        answer = client.get("/images", query_string={"filepath": filepath})
        assert failure(answer) == (404, "unknown_filepath", "filepath")


def test_lists_and_counts_keep_to_a_filter(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), b=signature(1), cc=signature(1))
    only = {"filter[inside.size]": "1"}

    assert client.get("/list", query_string=only).json["result"] == ["a", "b"]
    assert client.post("/list", data=only | {"offset": "1"}).json["result"] == ["b"]
    assert client.get("/count", query_string=only).json["result"] == [2]
    assert client.post("/count", data=only | {"filter[name]": "a"}).json["result"] == [1]


HOSTILE = ["%", "_", "*", "?", "\\", "\\%", "a*", "\u00e9", "\u732b/", "'", '"', "x" * 2048]


def test_prefix_is_compared_character_by_character(client: FlaskClient, memory_store: Any) -> None:
    names = ["a/1", "a/2", "b", *HOSTILE]
    store(memory_store, **{name: signature(1) for name in names})

    for prefix in ["a/", "", *HOSTILE]:
        only = {"filepath_prefix": prefix}
        expected = [name for name in names if name.startswith(prefix)]
        assert client.get("/list", query_string=only | {"limit": "99"}).json["result"] == expected
        assert client.post("/count", json=only).json["result"] == [len(expected)]
        pages = client.get("/images", query_string=only | {"limit": "99"}).json["result"]
        assert [record["filepath"] for record in pages] == expected


@pytest.mark.parametrize("path", ["/list", "/count", "/images"])
@pytest.mark.parametrize("prefix", ["x" * 2049, "\u00e9" * 1025, "a\nb", "\0"])
def test_prefix_of_no_filepath_is_rejected(client: FlaskClient, path: str, prefix: str) -> None:
    answer = client.get(path, query_string={"filepath_prefix": prefix})

    assert failure(answer) == (400, "wrong_parameter", "filepath_prefix")


def test_records_are_returned_in_pages(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, **{f"a/{number}": signature(1) for number in range(5)}, b=signature(1))
    one = client.get("/images", query_string={"filepath": "a/3"}).json["result"]
    records, cursors = [], [""]

    while cursors[-1] is not None:
        query = {"filepath_prefix": "a/", "filter[inside.size]": "3", "limit": "2", "cursor": cursors[-1]}
        answer = client.get("/images", query_string=query).json
        records += answer["result"]
        cursors.append(answer["cursor"])

    assert [record["filepath"] for record in records] == [f"a/{number}" for number in range(5)]
    assert [records[3]] == one
    assert len(cursors) == 4


def test_pages_have_bounds_and_cursors_of_their_own(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), b=signature(1))
    listed = client.get("/list", query_string={"limit": "1"}).json["cursor"]

    assert failure(client.get("/images", query_string={"limit": "501"})) == (400, "wrong_parameter", "limit")
    assert failure(client.get("/images", query_string={"cursor": listed})) == (400, "wrong_parameter", "cursor")
    both = client.get("/images", query_string={"filepath": "a", "limit": "1"})
    assert failure(both) == (400, "wrong_parameter", "limit")


def test_pages_by_cursor_list_every_image_once(client: FlaskClient, memory_store: Any) -> None:
    names = [f"image {number}" for number in range(7)]
    store(memory_store, **{name: signature(1) for name in names})
    listed, cursor = [], ""

    while cursor is not None:
        answer = client.get("/list", query_string={"cursor": cursor, "limit": "3"}).json
        listed += answer["result"]
        cursor = answer["cursor"]

    assert listed == names


def test_list_without_an_offset_returns_a_cursor(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), b=signature(1), c=signature(1))

    first = client.get("/list", query_string={"limit": "2"}).json
    rest = client.post("/list", data={"limit": "2", "cursor": first["cursor"]}).json

    assert (first["result"], rest["result"], rest["cursor"]) == (["a", "b"], ["c"], None)


def test_cursor_continues_a_list_from_any_offset(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), b=signature(1), c=signature(1))

    first = client.get("/list", query_string={"limit": "2", "offset": "0"}).json
    rest = client.get("/list", query_string={"limit": "2", "offset": "0", "cursor": first["cursor"]}).json
    second = client.get("/list", query_string={"limit": "1", "offset": "1"}).json
    third = client.get("/list", query_string={"limit": "2", "cursor": second["cursor"]}).json
    beyond = client.get("/list", query_string={"limit": "1", "offset": "3"}).json

    assert (first["result"], rest["result"], rest["cursor"]) == (["a", "b"], ["c"], None)
    assert (second["result"], third["result"], third["cursor"]) == (["b"], ["c"], None)
    assert (beyond["result"], beyond["cursor"]) == ([], None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"cursor": "17"}, "cursor"),
        ({"cursor": "", "offset": "3"}, "offset"),
        ({f"filter[{number}]": "x" for number in range(17)}, "filter"),
    ],
)
def test_wrong_list_parameter_is_named(client: FlaskClient, query: dict[str, str], field: str) -> None:
    answer = client.get("/list", query_string=query)

    assert (answer.status_code, answer.json["field"]) == (400, field)


def test_many_are_deleted_in_one_request(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, **{f"{number}": signature(1) for number in range(1001)})

    answer = client.delete("/delete", data={f"filepaths[{number}]": f"{number}" for number in range(1000)})

    assert (answer.status_code, answer.json["result"]) == (200, [])
    assert client.get("/list").json["result"] == ["1000"]


def test_filepaths_to_delete_may_repeat_in_the_query(client: FlaskClient, memory_store: Any) -> None:
    store(memory_store, a=signature(1), b=signature(1))

    client.delete("/delete", query_string={"filepaths[0]": "a", "filepaths[7]": "a"})

    assert client.get("/list").json["result"] == ["b"]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"filepaths[0]": "a", "filepaths[1]": ""}, "filepaths[1]"),
        ({"filepaths[1000]": "a"}, "filepaths[1000]"),
        ({"filepaths[0]": "a", "filepath": "a"}, "filepath"),
    ],
)
def test_a_wrong_deletion_names_its_field_and_deletes_nothing(
    client: FlaskClient, memory_store: Any, data: dict[str, str], field: str
) -> None:
    store(memory_store, a=signature(1))

    answer = client.delete("/delete", data=data)

    assert (answer.status_code, answer.json["field"]) == (400, field)
    assert client.get("/count").json["result"] == [1]
