"""JSON bodies: the same parameters as a form's, and every invalid one is an error that names its field."""

import io
import json
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.test import EnvironBuilder

from api.forms import requests
from api.forms.json_body import JSON_BYTES, decode
from api.forms.parameters import Parameters
from api.forms.reading import StrictRequest, UnsupportedBody, read
from common.config import Settings
from common.errors import InputError

SETTINGS = Settings(max_image_bytes=1000, max_wait_s=30)
URL = "http://a.org/cat.jpg"
ADD = (requests.Add, requests.AddMany)
SEARCH = (requests.Search,)
DELETE = (requests.Delete, requests.DeleteMany)


def read_json(body: Any, types: tuple[type[Parameters], ...] = SEARCH, *, memory: int = 2**30, **options: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    about = {"content_type": "application/json"} | options
    with (
        closing(EnvironBuilder(method="POST", input_stream=io.BytesIO(data), **about)) as builder,
        closing(builder.get_request(StrictRequest)) as request,
    ):
        request.environ["CONTENT_LENGTH"] = f"{len(data)}"
        request.max_form_memory_size = memory
        return read(request, types, SETTINGS)


def error_of(body: Any, types: tuple[type[Parameters], ...] = SEARCH, **options: Any) -> InputError:
    with pytest.raises(InputError) as error:
        read_json(body, types, **options)
    return error.value


def test_numbers_booleans_and_objects_have_their_own_types() -> None:
    body = {"url": URL, "filepath": "a", "metadata": {"a": [1, None, {"b": "ä"}]}, "wait": 2.5, "collection": "shop"}

    params = read_json(body, ADD)

    assert (params.source.url, params.filepath, params.wait, params.collection) == (URL, "a", 2.5, "shop")
    assert params.metadata == body["metadata"]


def test_filter_is_an_object_of_plain_values() -> None:
    where = {"album": "cats", "year": 2020, "ratio": 1.0, "public": True, "x[0]": "", "": "empty"}

    params = read_json({"filepath": "a", "filter": where, "all_orientations": False, "limit": 10.0})

    assert params.filter == {"album": "cats", "year": "2020", "ratio": "1.0", "public": "true", "x[0]": "", "": "empty"}
    assert (params.all_orientations, params.limit) == (False, 10)


def test_filepaths_are_an_array() -> None:
    assert read_json({"filepaths": ["b", "a"]}, DELETE).filepaths == {0: "b", 1: "a"}
    assert read_json({"filepath": "b"}, DELETE).filepath == "b"


def test_metadata_are_an_object_or_its_json() -> None:
    assert read_json({"url": URL, "filepath": "a", "metadata": '{"a": 1}'}, ADD).metadata == {"a": 1}

    error = error_of({"url": URL, "filepath": "a", "metadata": "a"}, ADD)

    assert (error.field, str(error)) == ("metadata", "metadata is not valid JSON")


def test_metadata_null_is_absent_metadata() -> None:
    assert read_json({"url": URL, "filepath": "a", "metadata": None}, ADD).metadata is None


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"']
)
def test_the_media_type_may_have_a_charset(content_type: str) -> None:
    assert read_json({"filepath": "ä"}, content_type=content_type).source.filepath == "ä"


def test_query_and_json_body_have_different_parameters() -> None:
    assert read_json({"filepath": "a"}, query_string="limit=7").limit == 7

    error = error_of({"filepath": "a", "limit": 7}, query_string="limit=7")

    assert (error.field, error.code) == ("limit", "repeated_parameter")


def test_empty_body_of_json_is_no_body() -> None:
    assert read_json(b"", (requests.List,), query_string="limit=7").limit == 7


BODY = [
    (b" ", "body", "is not valid JSON"),
    (b"{", "body", "is not valid JSON"),
    (b"{} {}", "body", "is not valid JSON"),
    (b"{'limit': 1}", "body", "is not valid JSON"),
    (b'\xef\xbb\xbf{"filepath": "a"}', "body", "is not valid JSON"),
    (b'{"filepath": "\xff"}', "body", "is not valid UTF-8"),
    ('{"filepath": "a"}'.encode("utf-16"), "body", "is not valid UTF-8"),
    (b"[]", "body", "must be a JSON object"),
    (b"null", "body", "must be a JSON object"),
    (b'"filepath"', "body", "must be a JSON object"),
    (b"[" * 200_000, "body", "is nested too deeply"),
    (b'{"limit": ' + b"9" * 5000 + b"}", "body", "is not valid JSON"),
    (b'{"limit": NaN}', "limit", "contains NaN"),
    (b'{"min_score": -Infinity}', "min_score", "contains NaN or a number that is too large"),
    (b'{"min_score": 1e999}', "min_score", "a number that is too large"),
    (b'{"filter": {"a": NaN}}', "filter", "contains NaN"),
    (b'{"filepath": "\\ud800"}', "filepath", "contains an unpaired surrogate"),
    (b'{"filter": {"\\ud800": ""}}', "filter", "contains an unpaired surrogate"),
    (b'{"\\ud800": 1}', "?", "contains an unpaired surrogate"),
    (b'{"limit": 1, "limit": 1}', "limit", "occurs more than once"),
    (b'{"filter": {"a": "1", "b": "", "a": "2"}}', "filter", "contains the key a more than once"),
]


@pytest.mark.parametrize(("body", "field", "text"), BODY)
def test_body_must_be_one_json_object(body: bytes, field: str, text: str) -> None:
    error = error_of(body)

    assert error.field == field
    assert text in str(error)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    *[({"filepath": value}, "filepath", "must be a JSON string") for value in (5, True, None, ["a"], {"a": 1})],
    *[({"limit": value}, "limit", "must be a JSON number") for value in ("10", True, None, [10], {})],
    *[({"limit": value}, "limit", "must be a whole number from 1 to 1000") for value in (0, 1.5, -1, 1e300)],
    *[({"min_score": value}, "min_score", "must be a JSON number") for value in ("10", False, None)],
    ({"min_score": 100.5}, "min_score", "must be a number from 0 to 100"),
    *[({"all_orientations": value}, "all_orientations", "must be a JSON boolean") for value in ("true", 1, None)],
    *[({"filter": value}, "filter", "must be a JSON object") for value in ("a", ["a"], None, 1)],
    *[({"filter": {"a": value}}, "filter[a]", "must be a JSON string, number or bool") for value in (None, [], {})],
    ({"filter": {f"{number}": 1 for number in range(17)}}, "filter", "has more than 16 keys"),
    ({"filter": {"a": "x" * 8193}}, "filter[a]", "8192 bytes"),
    ({"filter": {"x" * 500: None}}, f"filter[{'x' * 73}", "must be a JSON string"),
    ({"mode": "fats"}, "mode", "did you mean fast?"),
    ({"image": "aGVsbG8="}, "image", "must be a file in a multipart form"),
    ({"filter[album]": "cats"}, "filter[album]", "did you mean filter?"),
    ({"file_path": "a"}, "file_path", "did you mean filepath?"),
    ({"x" * 500: 1}, "x" * 80, "is not a parameter of this endpoint; it accepts all_orientations, collection"),
    ({"filepath": "a", "url": URL}, "filepath", "are mutually exclusive"),
]


@pytest.mark.parametrize(("body", "field", "text"), WRONG)
def test_a_wrong_parameter_is_named(body: dict[str, Any], field: str, text: str) -> None:
    error = error_of(body)

    assert error.field == field
    assert text in str(error)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        *[(value, "must be a JSON object") for value in (1, True, ["a"])],
        ({"a": "x" * 8193}, "8192 bytes"),
        ({str(number): "x" * 8000 for number in range(9)}, "is larger than 65536 bytes"),
        (json.loads('{"a":' * 25 + "1" + "}" * 25), "is nested deeper than 20 levels"),
        ({"a\0": 1}, "contains a key with a NUL character"),
    ],
)
def test_wrong_metadata_are_named(metadata: Any, text: str) -> None:
    error = error_of({"url": URL, "filepath": "a", "metadata": metadata}, ADD)

    assert error.field == "metadata"
    assert text in str(error)


@pytest.mark.parametrize(
    ("filepaths", "field", "text"),
    [
        ("a", "filepaths", "must be a JSON array"),
        ([], "filepaths", "must have 1 to 1000 items"),
        (["a"] * 1001, "filepaths", "must have 1 to 1000 items"),
        (["a", 1], "filepaths[1]", "must be a JSON string"),
        (["a", ""], "filepaths[1]", "is empty"),
    ],
)
def test_a_wrong_item_of_an_array_is_named(filepaths: Any, field: str, text: str) -> None:
    error = error_of({"filepaths": filepaths}, DELETE)

    assert error.field == field
    assert text in str(error)


def test_many_images_are_not_added_by_json() -> None:
    error = error_of({"urls": [URL], "filepaths": ["a"]}, ADD)

    assert (error.field, error.code) == ("urls", "unknown_parameter")


def test_a_missing_parameter_has_its_code() -> None:
    error = error_of({"url": URL}, ADD)

    assert (error.field, error.code) == ("filepath", "missing_parameter")


@pytest.mark.parametrize("memory", [100, 2**30])
def test_a_body_beyond_the_limit_is_too_large(memory: int) -> None:
    body = b'{"filepath": "a"' + b" " * min(memory, JSON_BYTES) + b"}"

    with pytest.raises(RequestEntityTooLarge):
        read_json(body, memory=memory)


def test_a_compressed_json_body_is_unsupported() -> None:
    with pytest.raises(UnsupportedBody, match="Content-Encoding"):
        read_json({"filepath": "a"}, headers={"Content-Encoding": "gzip"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_any_body_is_an_object_or_an_error(body: bytes) -> None:
    try:
        values = decode(body)
    except InputError:
        return
    assert isinstance(values, dict)
