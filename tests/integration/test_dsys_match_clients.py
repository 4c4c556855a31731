"""Clients of dsys/match: the requests of its documentation, and the fields that they read from the replies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from common.images.signature import sign
from common.store.base import Record

IMAGES = Path(__file__).resolve().parents[2] / "examples" / "images"
CAT = "http://example.com/chelsea.jpg"
KINDS = ["multipart/form-data", "application/x-www-form-urlencoded"]
FOUND = {"score": 100.0, "filepath": CAT, "metadata": {"album": "cats"}}


@pytest.fixture
def prepared(client: FlaskClient, memory_store: Any) -> FlaskClient:
    """Only the cat is stored."""
    pixels = np.asarray(Image.open(IMAGES / "chelsea.jpg").convert("RGB"))
    about: Any = {"metadata": {"album": "cats"}, "added": 1, "width": 451, "height": 300}
    memory_store.put([Record(filepath=CAT, seq=1, signatures=(sign(pixels),), **about)])
    return client


@pytest.fixture
def upload() -> Callable[[str], Any]:
    return lambda name: ((IMAGES / name).open("rb"), name)


def fields_of(answer: Any) -> tuple[Any, ...]:
    """Return the fields that a client of dsys/match reads."""
    body = answer.json
    return answer.status_code, answer.mimetype, body["method"], body["status"], body["error"], body["result"]


def fine(method: str, result: list[Any], status: int = 200) -> tuple[Any, ...]:
    return status, "application/json", method, "ok", [], result


@pytest.mark.parametrize("metadata", ['{"album": "cups"}', "null"])
def test_an_upload_is_added(prepared: FlaskClient, upload: Callable[[str], Any], metadata: str) -> None:
    form = {"image": upload("coffee.jpg"), "filepath": "http://example.com/coffee.jpg", "metadata": metadata}

    answer = prepared.post("/add", data=form)

    assert fields_of(answer) == fine("add", [], 202)


@pytest.mark.parametrize("kind", KINDS)
def test_a_url_is_added(prepared: FlaskClient, kind: str) -> None:
    answer = prepared.post("/add", data={"url": CAT, "filepath": CAT}, content_type=kind)

    assert fields_of(answer) == fine("add", [], 202)


@pytest.mark.parametrize("kind", KINDS)
def test_a_filepath_is_deleted_by_a_form(prepared: FlaskClient, memory_store: Any, kind: str) -> None:
    answer = prepared.delete("/delete", data={"filepath": CAT}, content_type=kind)

    assert fields_of(answer) == fine("delete", [])
    assert memory_store.count() == 0


@pytest.mark.parametrize("all_orientations", [{}, {"all_orientations": "true"}, {"all_orientations": "false"}])
def test_an_upload_is_searched(
    prepared: FlaskClient, upload: Callable[[str], Any], all_orientations: dict[str, str]
) -> None:
    answer = prepared.post("/search", data={"image": upload("chelsea.jpg"), **all_orientations})

    *fields, [match] = fields_of(answer)
    assert (*fields, []) == fine("search", [])
    assert match.items() >= FOUND.items()


def test_two_uploads_are_compared(prepared: FlaskClient, upload: Callable[[str], Any]) -> None:
    answer = prepared.post("/compare", data={"image1": upload("chelsea.jpg"), "image2": upload("chelsea.jpg")})

    *fields, [result] = fields_of(answer)
    assert (*fields, []) == fine("compare", [])
    assert result["score"] == 100.0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_images_are_counted(prepared: FlaskClient, method: str) -> None:
    assert fields_of(prepared.open("/count", method=method)) == fine("count", [1])


@pytest.mark.parametrize(("offset", "result"), [("0", [CAT]), ("1", [])])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_filepaths_are_listed(prepared: FlaskClient, method: str, offset: str, result: list[str]) -> None:
    params: Any = {"query_string" if method == "GET" else "data": {"offset": offset, "limit": "20"}}

    answer = prepared.open("/list", method=method, **params)

    assert fields_of(answer) == fine("list", result)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_service_answers_pings(prepared: FlaskClient, method: str) -> None:
    assert fields_of(prepared.open("/ping", method=method)) == fine("ping", [])


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [("POST", "/add", {}), ("DELETE", "/delete", {}), ("POST", "/search", {}), ("POST", "/compare", {})],
)
def test_missing_parameters_fail_in_the_same_envelope(
    prepared: FlaskClient, method: str, path: str, form: dict[str, str]
) -> None:
    status, kind, name, verdict, error, result = fields_of(prepared.open(path, method=method, data=form))

    assert (status, kind, name, verdict, result) == (400, "application/json", path[1:], "fail", [])
    assert error
