"""Modes of searches and comparisons over HTTP, with a store in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from redis import Redis

from api.services import Services
from common.config import Settings
from common.decoding.child import signed
from common.decoding.protocol import Output
from common.images.decode import DecodedImage
from common.store.base import Record
from support.images import encode, upload
from support.scenes import cropped, passed_on, textured

PHOTO = textured(1)
OLD_KEYS = {"score", "filepath", "metadata", "orientation"}
GEOMETRY_KEYS = {"query_overlap_percent", "target_overlap_percent", "transform"}


def stored(image: Image.Image, filepath: str, *, seq: int = 1, has_features: bool = True, **about: Any) -> Record:
    result = signed(DecodedImage(np.asarray(image), *image.size), Output.SIGNATURES | Output.STORED_FEATURES)
    return Record(
        filepath=filepath,
        seq=seq,
        signatures=result.signatures,
        features=result.stored_features if has_features else None,
        added=0,
        width=image.width,
        height=image.height,
        **about,
    )


def jpeg(image: Image.Image) -> Any:
    return upload(encode(image, "JPEG", quality=85), "query.jpg")


@pytest.fixture(autouse=True)
def filled(memory_store: Any) -> Any:
    memory_store.put([stored(PHOTO, "photo.jpg", metadata={"album": "a"}), stored(textured(2), "other.jpg", seq=2)])
    return memory_store


@pytest.fixture
def with_settings(make_client: Callable[..., FlaskClient], real_redis: Redis) -> Callable[..., FlaskClient]:
    return lambda **changes: make_client(real_redis, settings=Settings(max_image_bytes=1_000_000, **changes))


def search(client: FlaskClient, image: Image.Image, **form: Any) -> Any:
    return client.post("/search", data={"image": jpeg(image), **form}).json


@pytest.mark.parametrize(("mode", "filepaths"), [("fast", []), ("auto", ["photo.jpg"]), ("thorough", ["photo.jpg"])])
def test_local_features_find_a_screenshot(client: FlaskClient, mode: str, filepaths: list[str]) -> None:
    reply = search(client, passed_on(PHOTO), mode=mode)

    assert reply["mode"] == mode
    assert [match["filepath"] for match in reply["result"]] == filepaths
    assert [set(match) for match in reply["result"]] == [OLD_KEYS | GEOMETRY_KEYS | {"matched_by"}] * len(filepaths)


def test_auto_is_the_default_and_uses_signatures_first(client: FlaskClient) -> None:
    reply = search(client, PHOTO)

    [match] = reply["result"]
    assert reply["mode"] == "auto"
    assert set(match) == OLD_KEYS | {"matched_by"}
    assert (match["matched_by"], match["metadata"]) == ("signature", {"album": "a"})


def test_filter_and_offset_hold_for_local_features(client: FlaskClient) -> None:
    query = passed_on(PHOTO)

    replies = [search(client, query, **form) for form in ({"filter[album]": "b"}, {"offset": 1}, {"min_score": 99.9})]

    assert [reply["result"] for reply in replies] == [[], [], []]


def test_setting_chooses_the_default_mode(with_settings: Callable[..., FlaskClient]) -> None:
    replies = [search(with_settings(search_mode=mode), passed_on(PHOTO)) for mode in ("fast", "thorough")]

    assert [(reply["mode"], len(reply["result"])) for reply in replies] == [("fast", 0), ("thorough", 1)]


def test_auto_is_fast_in_a_large_collection(with_settings: Callable[..., FlaskClient]) -> None:
    client = with_settings(local_features_max_images=1)

    replies = [search(client, passed_on(PHOTO), mode=mode) for mode in ("auto", "thorough")]

    assert [(reply["mode"], len(reply["result"])) for reply in replies] == [("fast", 0), ("thorough", 1)]


def test_every_mode_is_fast_without_local_features(with_settings: Callable[..., FlaskClient]) -> None:
    client = with_settings(local_features=False)

    replies = [search(client, passed_on(PHOTO), mode=mode) for mode in ("auto", "thorough")]

    assert [(reply["mode"], reply["result"]) for reply in replies] == [("fast", [])] * 2


@pytest.mark.parametrize("mode", ["auto", "thorough"])
def test_stored_image_is_searched_by_its_local_features(client: FlaskClient, memory_store: Any, mode: str) -> None:
    memory_store.put([stored(cropped(PHOTO), "part.jpg", seq=3)])

    reply = client.post("/search", data={"filepath": "part.jpg", "mode": mode}).json

    assert [match["filepath"] for match in reply["result"]] == ["part.jpg", "photo.jpg"]
    assert reply["result"][1]["matched_by"] == "local_features"


def test_auto_ends_with_a_copy_of_the_stored_query(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([stored(cropped(PHOTO), "part.jpg", seq=3), stored(PHOTO, "copy.jpg", seq=4)])

    reply = client.post("/search", data={"filepath": "photo.jpg", "mode": "auto"}).json

    assert [match["filepath"] for match in reply["result"]] == ["copy.jpg", "photo.jpg"]


def test_query_of_an_earlier_version_is_fast(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([stored(cropped(PHOTO), "part.jpg", seq=3, has_features=False)])

    reply = client.post("/search", data={"filepath": "part.jpg", "mode": "thorough"}).json

    assert (reply["mode"], [match["filepath"] for match in reply["result"]]) == ("fast", ["part.jpg"])


@pytest.mark.parametrize(
    ("form", "matched_by"),
    [
        ({"filepath2": "photo.jpg"}, "local_features"),
        ({"filepath2": "photo.jpg", "mode": "thorough"}, "local_features"),
        ({"filepath2": "photo.jpg", "mode": "fast"}, "signature"),
        ({"filepath2": "other.jpg", "mode": "thorough"}, "signature"),
    ],
)
def test_comparison_uses_the_mode(client: FlaskClient, form: dict[str, str], matched_by: str) -> None:
    reply = client.post("/compare", data={"image1": jpeg(passed_on(PHOTO)), **form}).json

    [result] = reply["result"]
    assert (reply["mode"], result["matched_by"]) == (form.get("mode", "auto"), matched_by)
    assert (set(result) == {"score", "matched_by"} | GEOMETRY_KEYS) == (matched_by == "local_features")


@pytest.mark.parametrize("path", ["/search", "/compare"])
def test_numbers_in_replies_have_few_decimals(client: FlaskClient, path: str) -> None:
    name, other = ("image1", {"filepath2": "photo.jpg"}) if path == "/compare" else ("image", {})

    reply = client.post(path, data={name: jpeg(passed_on(PHOTO)), "mode": "thorough", **other}).json

    result = reply["result"][0]
    percents = [result[key] for key in ("score", "query_overlap_percent", "target_overlap_percent")]
    assert percents == [round(value, 2) for value in percents]
    assert result["transform"] == {key: round(value, 6) for key, value in result["transform"].items()}


def test_fast_searches_need_no_slot_of_local_features(with_settings: Callable[..., FlaskClient]) -> None:
    client = with_settings(local_features_searches=1)
    closure = client.application.view_functions["search"].__closure__ or ()
    [services] = [cell.cell_contents for cell in closure if isinstance(cell.cell_contents, Services)]

    with services.search_images.local_features.slot("another client"):
        busy = client.post("/search", data={"image": jpeg(passed_on(PHOTO))})
        fast = [search(client, passed_on(PHOTO), mode="fast"), search(client, PHOTO, mode="auto")]
    later = search(client, passed_on(PHOTO))

    assert (busy.status_code, busy.json["code"], busy.headers["Retry-After"]) == (503, "overloaded", "1")
    assert [reply["status"] for reply in fast] == ["ok", "ok"]
    assert len(later["result"]) == 1


def test_unknown_mode_is_an_error(client: FlaskClient) -> None:
    reply = client.post("/search", data={"filepath": "photo.jpg", "mode": "through"})

    assert (reply.status_code, reply.json["code"], reply.json["field"]) == (400, "wrong_parameter", "mode")
    assert "did you mean thorough?" in reply.json["error"][0]


def test_record_reports_few_features(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([stored(Image.new("RGB", (99, 99), "white"), "plain.png", seq=3)])
    memory_store.put([stored(PHOTO, "older.jpg", seq=4, has_features=False)])

    records = [
        client.get("/images", query_string={"filepath": filepath}).json["result"][0]
        for filepath in ("photo.jpg", "plain.png", "older.jpg")
    ]

    assert [record["few_features"] for record in records] == [False, True, None]
