"""Requests with JSON bodies: each endpoint answers as it does for a form."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.description.examples import EXAMPLES, Example
from api.endpoints import Endpoint
from api.routes import ENDPOINTS
from support.records import record, signature

URL = "http://example.org/cat.jpg"
METADATA = {"album": "cats", "year": 2020, "public": True}
BY_JSON = [
    (endpoint, example)
    for endpoint in ENDPOINTS
    for example in EXAMPLES[endpoint.name]
    if set(endpoint.methods) & {"POST", "PUT", "DELETE"}
    and example.form
    and not (endpoint.line or example.has_files() or "wait" in example.form)
]


@pytest.fixture
def stored(client: FlaskClient, memory_store: Any) -> FlaskClient:
    memory_store.put([record("a", 1, signature(1), metadata=METADATA), record("b", 2, signature(1))])
    return client


def result(answer: Any) -> Any:
    assert (answer.status_code, answer.json["status"]) == (200, "ok")
    return answer.json["result"]


def test_an_image_is_added_by_url(client: FlaskClient) -> None:
    body = {"url": URL, "filepath": "cat.jpg", "metadata": METADATA, "callback_url": "http://example.org/hook"}

    answer = client.post("/add", json=body)

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/tasks/{answer.json['task']['id']}"
    assert answer.json["task"]["filepath"] == "cat.jpg"
    assert answer.json["task"]["callback"]["state"] == "pending"


def test_wait_is_a_number(client: FlaskClient) -> None:
    assert client.post("/add", json={"url": URL, "filepath": "cat.jpg", "wait": 0.01}).status_code == 202


def test_form_and_json_are_the_same_request(client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "1"}
    form = {"url": URL, "filepath": "cat.jpg", "metadata": json.dumps(METADATA)}

    by_form = client.post("/add", data=form, headers=headers)
    by_json = client.post("/add", json=form | {"metadata": METADATA}, headers=headers)

    assert by_json.json["task"]["id"] == by_form.json["task"]["id"]
    assert by_json.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("where", [{"album": "cats"}, {"year": 2020}, {"public": True}, {"year": "2020"}])
def test_searches_lists_and_counts_are_filtered(stored: FlaskClient, where: dict[str, Any]) -> None:
    matches = result(stored.post("/search", json={"filepath": "b", "limit": 5, "mode": "fast", "filter": where}))
    listed = result(stored.post("/list", json={"limit": 5, "offset": 0, "filter": where}))
    counted = result(stored.post("/count", json={"filter": where}))

    assert [match["filepath"] for match in matches] == listed == ["a"]
    assert counted == [1]


def test_filters_that_no_metadata_have_find_nothing(stored: FlaskClient) -> None:
    assert result(stored.post("/count", json={"filter": {"year": 2021, "album": "cats"}})) == [0]


def test_stored_images_are_compared(stored: FlaskClient) -> None:
    assert result(stored.post("/compare", json={"filepath1": "a", "filepath2": "b"}))[0]["score"] == 100


@pytest.mark.parametrize(("body", "left"), [({"filepath": "a"}, ["b"]), ({"filepaths": ["a", "b"]}, [])])
def test_images_are_deleted(stored: FlaskClient, body: dict[str, Any], left: list[str]) -> None:
    assert result(stored.delete("/delete", json=body)) == []
    assert result(stored.get("/list")) == left


def test_collections_are_parameters_of_a_body(stored: FlaskClient) -> None:
    created = stored.put("/collections/shop", json={"max_images": 7})

    assert (created.status_code, created.json["result"][0]["max_images"]) == (201, 7)
    assert result(stored.post("/count", json={"collection": "shop"})) == [0]
    assert stored.post("/count", json={"collection": "other"}).json["code"] == "unknown_collection"


def test_get_with_a_json_media_type_needs_no_body(stored: FlaskClient) -> None:
    assert result(stored.get("/count", headers={"Content-Type": "application/json"})) == [2]


def test_a_wrong_type_is_a_400_that_names_it(client: FlaskClient) -> None:
    answer = client.post("/search", json={"filepath": "a", "limit": "10"})

    assert answer.status_code == 400
    assert answer.json == {
        "status": "fail",
        "method": "search",
        "result": [],
        "code": "wrong_parameter",
        "field": "limit",
        "error": ["limit must be a JSON number"],
    }


def test_a_key_that_occurs_twice_is_a_400(client: FlaskClient) -> None:
    answer = client.post("/count", data='{"collection": "a", "collection": "b"}', content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (400, "repeated_parameter")
    assert answer.json["field"] == "collection"


def test_a_body_beyond_the_limit_is_a_413(client: FlaskClient) -> None:
    answer = client.post("/add", data=b'{"url": "' + b"a" * 5_000_000, content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (413, "too_large")


@pytest.mark.parametrize(("endpoint", "example"), BY_JSON, ids=lambda one: getattr(one, "title", ""))
def test_examples_are_accepted_as_json(client: FlaskClient, endpoint: Endpoint, example: Example) -> None:
    method = next(method for method in endpoint.methods if method != "GET")
    path = endpoint.path.replace("<name>", example.path.get("name", ""))

    answer = client.open(path, method=method, json=example.json())

    # An image or a collection may be missing, or the number of images another one: the body is accepted.
    assert answer.status_code in {200, 201, 202, 404, 409}
