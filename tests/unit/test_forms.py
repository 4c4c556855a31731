"""Forms: every wrong parameter is an error that names its field."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from flask import Request
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from api.forms import Form, TooLarge, UnsupportedBody, valid_filepath, valid_metadata
from common.errors import InputError

KNOWN = ("url", "image", "filepath", "metadata", "all_orientations", "offset", "min_score")
MOST = 1000


Read = Callable[..., Form]


@pytest.fixture
def read() -> Iterator[Read]:
    with ExitStack() as opened:

        def read(data: dict[str, Any] | None = None, *, query: str = "", **options: Any) -> Form:
            builder = opened.enter_context(
                closing(EnvironBuilder(method="POST", data=data, query_string=query, **options))
            )
            request = opened.enter_context(closing(builder.get_request(Request)))
            return Form.read(request, *KNOWN, max_image_bytes=MOST)

        yield read


def file(data: bytes, name: str = "cat.jpg") -> tuple[io.BytesIO, str]:
    return io.BytesIO(data), name


def test_parameters_come_by_form_and_by_query(read: Read) -> None:
    form = read({"filepath": "cat.jpg"}, query="offset=7")

    assert form.filepath() == "cat.jpg"
    assert form.whole("offset", default=0, low=0, high=10) == 7


def test_a_picture_comes_by_upload_or_by_url(read: Read) -> None:
    by_upload = read({"image": file(b"bytes")}).source()
    by_url = read({"url": " http://a.org/cat.jpg "}).source()

    assert (by_upload.field, by_upload.data, by_upload.url) == ("image", b"bytes", None)
    assert (by_url.field, by_url.data, by_url.url) == ("url", None, "http://a.org/cat.jpg")


def test_a_browsers_empty_file_field_is_no_picture(read: Read) -> None:
    form = read({"image": file(b"", name=""), "url": "http://a.org"}, content_type="multipart/form-data")

    assert form.source().url == "http://a.org"


@pytest.mark.parametrize(
    ("data", "query", "field", "code"),
    [
        ({}, "", "image", "missing_parameter"),
        ({"url": "http://a.org", "image": file(b"x")}, "", "url", "wrong_parameter"),
        ({"url": ""}, "", "url", "wrong_parameter"),
        ({"url": "  "}, "", "url", "wrong_parameter"),
        ({"url": file(b"http://a.org")}, "", "url", "wrong_parameter"),
        ({"image": "cat.jpg"}, "", "image", "wrong_parameter"),
        ({"image": file(b"")}, "", "image", "empty_image"),
        ({"image": file(b"x" * (MOST + 1))}, "", "image", "too_large"),
        ({"url": "http://a.org"}, "url=http://b.org", "url", "repeated_parameter"),
        ({"urls": "http://a.org"}, "", "urls", "unknown_parameter"),
        ({"picture": file(b"x")}, "", "picture", "unknown_parameter"),
    ],
)
def test_a_wrong_picture_names_its_field(read: Read, data: dict[str, Any], query: str, field: str, code: str) -> None:
    with pytest.raises(InputError) as error:
        read(data, query=query).source()

    assert (error.value.field, error.value.code) == (field, code)


def test_an_unknown_parameter_is_told_the_nearest_one(read: Read) -> None:
    with pytest.raises(InputError, match="did you mean filepath"):
        read({"file_path": "cat.jpg"})


def test_too_large_a_picture_has_an_error_of_its_own(read: Read) -> None:
    with pytest.raises(TooLarge):
        read({"image": file(b"x" * (MOST + 1))}).source()


def test_a_body_that_is_no_form_is_told_so(read: Read) -> None:
    with pytest.raises(UnsupportedBody, match="multipart/form-data"):
        read(None, json={"filepath": "cat.jpg"})


@pytest.mark.parametrize(
    "name",
    ["a", "cat.jpg", "dir/ä ö 猫.jpg", "http://a.com/x/cat.jpg?v=1", "x" * 2048, " leading and trailing ", "e\u0301"],
)
def test_a_filepath_is_kept_as_it_is(name: str) -> None:
    assert valid_filepath(name, "filepath") == name


@pytest.mark.parametrize(
    "name", ["", "x" * 2049, "ä" * 1025, "a\nb", "a\x00b", "a\x7fb", "a\x85b", "a\ufffdb", "\ud800"]
)
def test_a_filepath_that_cannot_be_names_its_field(name: str) -> None:
    with pytest.raises(InputError, match="filepath") as error:
        valid_filepath(name, "filepath")

    assert error.value.field == "filepath"


def test_a_missing_filepath_says_that_it_is_required(read: Read) -> None:
    with pytest.raises(InputError, match="filepath is required") as error:
        read({}).filepath()

    assert error.value.code == "missing_parameter"


@pytest.mark.parametrize("value", [{}, {"a": 1, "b": [None, True, {"c": "ä"}]}, {"n": -1.5e300}, {"": ""}])
def test_metadata_is_any_json_object(value: dict[str, Any]) -> None:
    assert valid_metadata(json.dumps(value), "metadata") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"text"',
        "null",
        "7",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        "[" * 60_000,
        '{"a":' * 25 + "1" + "}" * 25,
        '{"a": ' + "9" * 5000 + "}",
        json.dumps({"a": "x" * 8193}),
        json.dumps({"x" * 8193: 1}),
        json.dumps({"x" * 5000: {"y" * 5000: 1}}),
        '{"a\\u0000b": 1}',
        json.dumps({str(number): "x" * 8000 for number in range(9)}),
    ],
)
def test_metadata_that_cannot_be_names_its_field(text: str) -> None:
    with pytest.raises(InputError, match="metadata") as error:
        valid_metadata(text, "metadata")

    assert error.value.field == "metadata"


@given(st.text(max_size=300))
def test_whatever_metadata_a_client_sends_it_is_an_object_or_an_error(text: str) -> None:
    try:
        value = valid_metadata(text, "metadata")
    except InputError:
        return
    assert isinstance(value, dict)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("TRUE", True), ("1", True), ("False", False), ("0", False)]
)
def test_a_boolean_is_read_in_any_case(read: Read, text: str, *, value: bool) -> None:
    assert read({"all_orientations": text}).boolean("all_orientations", default=not value) is value


@pytest.mark.parametrize("text", ["", "yes", "2", "tru", "on", "t r u e"])
def test_any_other_boolean_names_its_field(read: Read, text: str) -> None:
    with pytest.raises(InputError, match="all_orientations must be"):
        read({"all_orientations": text}).boolean("all_orientations", default=True)


@pytest.mark.parametrize("text", ["", "abc", "-1", "1.5", "11", "1e1", "٣", "9" * 5000, "0x1", " 1", "1_0"])
def test_a_wrong_whole_number_names_its_field_and_its_bounds(read: Read, text: str) -> None:
    with pytest.raises(InputError, match="offset must be a whole number from 0 to 10"):
        read({"offset": text}).whole("offset", default=0, low=0, high=10)


@pytest.mark.parametrize("text", ["", "abc", "-0.1", "100.1", "nan", "inf"])
def test_a_wrong_number_names_its_field_and_its_bounds(read: Read, text: str) -> None:
    with pytest.raises(InputError, match="min_score must be a number from 0 to 100"):
        read({"min_score": text}).number("min_score", low=0, high=100)


def test_what_is_not_given_has_its_default(read: Read) -> None:
    form = read({})

    assert form.metadata() is None
    assert form.whole("offset", default=3, low=0, high=10) == 3
    assert form.number("min_score", low=0, high=100) is None
    assert form.boolean("all_orientations", default=True) is True
