"""Requests as types: every invalid parameter is an error that names its field."""

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from werkzeug.test import EnvironBuilder

from api.forms import requests
from api.forms.parameters import (
    Boolean,
    Cursor,
    Filepath,
    Filters,
    Indexed,
    InPath,
    Metadata,
    Number,
    OneOf,
    Parameters,
    Whole,
    cursor,
)
from api.forms.reading import StrictRequest, UnsupportedBody, parse
from api.forms.reading import read as read_request
from api.forms.sources import WithImage
from common.config import Settings
from common.errors import InputError

SETTINGS = Settings(max_image_bytes=1000, max_wait_s=30)
MOST = SETTINGS.max_image_bytes


class One(Parameters):
    """A parameter of every type."""

    filepath: Filepath | None = None
    metadata: Metadata | None = None
    all_orientations: Boolean = True
    offset: Annotated[int, Whole(0, 10)] = 3
    min_score: Annotated[float, Number(0, 100)] | None = None
    wait: Annotated[float, Number(0, "max_wait_s")] | None = None
    order: Annotated[str, OneOf(("up", "down"))] = "up"
    cursor: Annotated[str, Cursor("list", re.compile("[0-9]+"))] = ""
    filter: Filters = Field(default_factory=dict)


class Many(Parameters):
    """Indexed filepaths."""

    filepaths: Annotated[dict[int, Filepath], Indexed(5)]


class Named(Parameters):
    """A required parameter and one of the path."""

    id: Annotated[str, InPath()] = ""
    filepath: Filepath


Read = Callable[..., Any]


@pytest.fixture
def read() -> Iterator[Read]:
    with ExitStack() as opened:

        def read(
            data: dict[str, Any] | bytes | None = None,
            *,
            query: str = "",
            types: tuple[type[Parameters], ...] = (One,),
            **options: Any,
        ) -> Any:
            builder = opened.enter_context(
                closing(EnvironBuilder(method="POST", data=data, query_string=query, **options))
            )
            request = opened.enter_context(closing(builder.get_request(StrictRequest)))
            return read_request(request, types, SETTINGS)

        yield read


def file(data: bytes, name: str = "cat.jpg") -> tuple[io.BytesIO, str]:
    return io.BytesIO(data), name


def test_parameters_are_read_from_form_and_query(read: Read) -> None:
    params = read({"filepath": "cat.jpg"}, query="offset=7")

    assert (params.filepath, params.offset) == ("cat.jpg", 7)


def test_an_image_is_an_upload_or_a_url(read: Read) -> None:
    by_upload = read({"image": file(b"bytes")}, types=(WithImage,)).source
    by_url = read({"url": " http://a.org/cat.jpg "}, types=(WithImage,)).source

    assert (by_upload.field, by_upload.url) == ("image", None)
    assert by_upload.file is not None
    assert (by_upload.file.size, by_upload.file.read()) == (5, b"bytes")
    assert (by_url.field, by_url.file, by_url.url) == ("url", None, "http://a.org/cat.jpg")


def test_files_of_an_incomplete_form_are_closed() -> None:
    body = b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nabc"
    environ = EnvironBuilder(method="POST", data=body, content_type="multipart/form-data; boundary=x").get_environ()

    with closing(StrictRequest(environ)) as request, pytest.raises(InputError, match="not a valid form"):
        read_request(request, (WithImage,), SETTINGS)

    assert [file.closed for file in request._opened] == [True]


def test_a_browsers_empty_file_field_is_ignored(read: Read) -> None:
    data = {"image": file(b"", name=""), "url": "http://a.org"}

    params = read(data, types=(WithImage,), content_type="multipart/form-data")

    assert params.source.url == "http://a.org"


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
def test_an_invalid_image_names_its_field(read: Read, data: dict[str, Any], query: str, field: str, code: str) -> None:
    with pytest.raises(InputError) as error:
        read(data, query=query, types=(WithImage,))

    assert (error.value.field, error.value.code) == (field, code)


def test_errors_suggest_the_nearest_parameter(read: Read) -> None:
    with pytest.raises(InputError, match="did you mean filepath"):
        read({"file_path": "cat.jpg"})


def test_too_large_an_image_has_its_own_code(read: Read) -> None:
    with pytest.raises(
        InputError, match=r"image has 1,001 bytes; the limit is 1,000 \(MATCH_MAX_IMAGE_BYTES\)"
    ) as error:
        read({"image": file(b"x" * (MOST + 1))}, types=(WithImage,))

    assert error.value.code == "too_large"


@pytest.mark.parametrize("content_type", ["text/plain", "text/json", "application/merge-patch+json", ""])
def test_a_body_of_another_media_type_is_unsupported(read: Read, content_type: str) -> None:
    with pytest.raises(UnsupportedBody, match="application/json, multipart/form-data or"):
        read(b'{"filepath": "cat.jpg"}', content_type=content_type)


def test_a_compressed_body_is_unsupported(read: Read) -> None:
    with pytest.raises(UnsupportedBody, match="Content-Encoding"):
        read({"filepath": "cat.jpg"}, headers={"Content-Encoding": "gzip"})

    assert read({"filepath": "cat.jpg"}, headers={"Content-Encoding": "identity"}).filepath == "cat.jpg"


@pytest.mark.parametrize(
    "name",
    ["a", "cat.jpg", "dir/ä ö 猫.jpg", "http://a.com/x/cat.jpg?v=1", "x" * 2048, " leading and trailing ", "e\u0301"],
)
def test_a_filepath_is_kept_unchanged(name: str) -> None:
    assert parse(One, {"filepath": name}, SETTINGS).filepath == name


@pytest.mark.parametrize(
    "name", ["", "x" * 2049, "ä" * 1025, "a\nb", "a\x00b", "a\x7fb", "a\x85b", "a\ufffdb", "\ud800"]
)
def test_an_invalid_filepath_names_its_field(name: str) -> None:
    with pytest.raises(InputError, match="filepath") as error:
        parse(One, {"filepath": name}, SETTINGS)

    assert error.value.field == "filepath"


def test_a_missing_filepath_is_reported_as_required(read: Read) -> None:
    with pytest.raises(InputError, match="filepath is required") as error:
        read({}, types=(Named,))

    assert error.value.code == "missing_parameter"


@pytest.mark.parametrize("name", ["bogus", "x", "", "\N{SNOWMAN}" * 5000])
def test_errors_for_unknown_names_list_the_endpoints_parameters(read: Read, name: str) -> None:
    with pytest.raises(InputError) as error:
        read({name: "1"}, types=(One,))

    text = str(error.value)
    assert "did you mean" not in text
    assert text.endswith(
        "is not a parameter of this endpoint; it accepts " + ", ".join(sorted({*One.plain, *One.keyed.values()}))
    )


@pytest.mark.parametrize(
    ("word", "hint"), [("upp", "must be one of up, down; did you mean up?"), ("sideways", "must be one of up, down")]
)
def test_errors_suggest_the_nearest_choice(read: Read, word: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        read({"order": word}, types=(One,))

    assert str(error.value) == f"order {hint}"


def test_a_file_for_a_text_field_is_rejected(read: Read) -> None:
    with pytest.raises(InputError, match="filepath must be text, not a file"):
        read({"filepath": file(b"cat.jpg")}, types=(Named,))


def test_path_parameters_are_not_accepted_in_a_form(read: Read) -> None:
    with pytest.raises(InputError, match="id is not a parameter of this endpoint; it accepts filepath"):
        read({"id": "7"}, types=(Named,))


@pytest.mark.parametrize(
    "value", [{}, {"a": 1, "b": [None, True, {"c": "ä"}]}, {"n": -1.5e300}, {"n": -(10**1000) + 1}, {"": ""}]
)
def test_metadata_is_any_json_object(value: dict[str, Any]) -> None:
    assert parse(One, {"metadata": json.dumps(value)}, SETTINGS).metadata == value


@pytest.mark.parametrize("text", ["null", " null\n"])
def test_metadata_null_is_absent_metadata(text: str) -> None:
    assert parse(One, {"metadata": text}, SETTINGS).metadata is None


def test_metadata_null_in_a_line_is_absent_metadata() -> None:
    values = {"url": "http://example.org/a.jpg", "filepath": "a.jpg", "metadata": None}

    assert parse(requests.Line, values, SETTINGS).metadata is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"text"',
        "7",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": [1, {"b": [NaN]}]}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        "[" * 60_000,
        '{"a":' * 25 + "1" + "}" * 25,
        '{"a": ' + "9" * 5000 + "}",
        '{"a": [-' + "9" * 1001 + "]}",
        json.dumps({"a": "x" * 8193}),
        json.dumps({"x" * 8193: 1}),
        json.dumps({"x" * 5000: {"y" * 5000: 1}}),
        '{"a\\u0000b": 1}',
        json.dumps({str(number): "x" * 8000 for number in range(9)}),
    ],
)
def test_invalid_metadata_names_its_field(text: str) -> None:
    with pytest.raises(InputError, match="metadata") as error:
        parse(One, {"metadata": text}, SETTINGS)

    assert error.value.field == "metadata"


@given(st.text(max_size=300))
def test_any_metadata_is_an_object_or_an_error(text: str) -> None:
    try:
        value = parse(One, {"metadata": text}, SETTINGS).metadata
    except InputError:
        return
    assert isinstance(value, dict) or (value is None and text.strip() == "null")


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("TRUE", True), ("1", True), ("False", False), ("0", False)]
)
def test_a_boolean_is_read_in_any_case(read: Read, text: str, *, value: bool) -> None:
    assert read({"all_orientations": text}).all_orientations is value


INVALID = {
    "all_orientations must be": ["", "yes", "2", "tru", "on", "t r u e"],
    "offset must be a whole number from 0 to 10": [
        *("", "abc", "-1", "1.5", "11", "1e1", "٣", "9" * 5000, "0x1", " 1", "1_0"),
    ],
    "min_score must be a number from 0 to 100": ["", "abc", "-0.1", "100.1", "nan", "inf"],
}


@pytest.mark.parametrize(("error", "text"), [(error, text) for error, texts in INVALID.items() for text in texts])
def test_errors_name_field_and_accepted_values(read: Read, error: str, text: str) -> None:
    with pytest.raises(InputError, match=error):
        read({error.partition(" ")[0]: text})


def test_a_bound_may_be_a_setting(read: Read) -> None:
    assert read({"wait": "30"}).wait == 30

    with pytest.raises(InputError, match="wait must be a number from 0 to 30"):
        read({"wait": "30.5"})


def test_a_cursor_of_a_reply_is_accepted(read: Read) -> None:
    assert read({"cursor": cursor("list", "17")}).cursor == "17"
    assert read({"cursor": ""}).cursor == ""


@pytest.mark.parametrize(
    "text",
    [
        *("17", "x", cursor("list", "17")[:-4], cursor("list", "17").swapcase(), cursor("tasks", "17"), "\u732b"),
        *(cursor("list", ""), cursor("list", "not a number")),
    ],
)
def test_a_damaged_or_unknown_cursor_is_rejected(read: Read, text: str) -> None:
    with pytest.raises(InputError, match="cursor must be empty or the cursor of a previous reply"):
        read({"cursor": text})


def test_filters_have_arbitrary_keys(read: Read) -> None:
    params = read({"filter[a.b]": "1", "filter[]": "empty"}, query="filter[x[0]]=2")

    assert params.filter == {"a.b": "1", "": "empty", "x[0]": "2"}


@pytest.mark.parametrize("data", [{"filter[a]": "x" * 8193}, {"filter[a]": file(b"x")}])
def test_an_invalid_filter_is_named_with_its_key(read: Read, data: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        read(data)

    assert error.value.field == "filter[a]"


@pytest.mark.parametrize("name", ["filter[a", "filter a]", "offset[0]", "filters[a]", "[]", "]"])
def test_only_keyed_parameters_have_brackets(read: Read, name: str) -> None:
    with pytest.raises(InputError) as error:
        read({name: "x"})

    assert (error.value.field, error.value.code) == (name, "unknown_parameter")


@pytest.mark.parametrize("as_file", [False, True])
def test_a_filter_may_be_one_json_object(read: Read, *, as_file: bool) -> None:
    sent = json.dumps({"album": "cats", "year": 2020, "public": True})
    blob = (*file(sent.encode(), "blob"), "application/json")

    params = read({"filter": blob if as_file else sent})

    assert params.filter == {"album": "cats", "year": "2020", "public": "true"}


@pytest.mark.parametrize("value", ["x", "[]", "null", "", '{"a": null}', '{"a": []}', '{"a": NaN}', file(b"{}")])
def test_a_filter_without_keys_must_be_a_json_object(read: Read, value: Any) -> None:
    with pytest.raises(InputError, match=r"^filter ") as error:
        read({"filter": value})

    assert (error.value.field, error.value.code) == ("filter", "wrong_parameter")


def test_metadata_may_be_a_part_of_json(read: Read) -> None:
    blob = (*file(b'{"a": 1}', "blob"), "application/json; charset=utf-8")
    large = (*file(b" " * 65_537, "blob"), "application/json")

    assert read({"metadata": blob}).metadata == {"a": 1}
    with pytest.raises(InputError, match="metadata is larger than 65536 bytes"):
        read({"metadata": large})


def test_repeated_parameters_have_the_index_of_their_position(read: Read) -> None:
    assert read({"filepaths": ["b", "a,c"]}, types=(Many,)).filepaths == {0: "b", 1: "a,c"}
    assert read(query="filepaths=b&filepaths=a", types=(Many,)).filepaths == {0: "b", 1: "a"}
    with pytest.raises(InputError, match=r"filepaths\[5\] must have an index from 0 to 4"):
        read({"filepaths": ["a"] * 6}, types=(Many,))


def test_repeated_files_and_texts_of_one_image_belong_together(read: Read) -> None:
    form = {"filepaths": ["b", "a"], "metadata": ["{}", '{"a": 1}'], "images": [file(b"1"), file(b"2")]}

    items = read(form, types=(requests.Add, requests.AddMany)).items()

    assert [(number, item["filepath"], item["metadata"]) for number, item in items.items()] == [
        (0, "b", "{}"),
        (1, "a", '{"a": 1}'),
    ]
    assert [item["image"].read() for item in items.values()] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("data", "field", "code"),
    [
        ({"filepaths": "a", "filepaths[0]": "b"}, "filepaths[0]", "wrong_parameter"),
        ({"filepaths[0]": "a", "filepaths": "b"}, "filepaths[0]", "wrong_parameter"),
        ({"filepath": ["a", "b"]}, "filepath", "repeated_parameter"),
        ({"filepath": "a", "metadata": ["{}", "{}"]}, "metadata", "repeated_parameter"),
        ({"filepath": "a", "filepaths": "b"}, "filepaths", "wrong_parameter"),
        ({"filepaths[0]": ["a", "b"]}, "filepaths[0]", "repeated_parameter"),
    ],
)
def test_other_repeated_parameters_are_rejected(read: Read, data: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InputError) as error:
        read(data, types=(requests.Add, requests.AddMany))

    assert (error.value.field, error.value.code) == (field, code)


def test_indexed_parameters_are_sorted_by_index(read: Read) -> None:
    params = read({"filepaths[3]": "c", "filepaths[0]": "a", "filepaths[1]": "b"}, types=(Many,))

    assert list(params.filepaths.items()) == [(0, "a"), (1, "b"), (3, "c")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filepaths[5]", "a"),
        ("filepaths[-1]", "a"),
        ("filepaths[]", "a"),
        ("filepaths[02]", "a"),
        ("filepaths[2]", ""),
    ],
)
def test_an_invalid_index_or_indexed_value_is_named(read: Read, name: str, value: str) -> None:
    with pytest.raises(InputError) as error:
        read({name: value}, types=(Many,))

    assert error.value.field == name


def test_the_form_with_all_names_is_chosen(read: Read) -> None:
    both = (Named, Many)

    assert isinstance(read({"filepath": "a"}, types=both), Named)
    assert isinstance(read({"filepaths[0]": "a"}, types=both), Many)


def test_parameters_of_two_forms_cannot_be_combined(read: Read) -> None:
    with pytest.raises(InputError, match=r"filepaths\[0\] cannot be combined with filepath"):
        read({"filepath": "a", "filepaths[0]": "a"}, types=(Named, Many))


def test_missing_parameters_have_their_defaults(read: Read) -> None:
    params = read({})

    assert (params.metadata, params.offset, params.min_score, params.all_orientations) == (None, 3, None, True)


def test_errors_shorten_long_names(read: Read) -> None:
    with pytest.raises(InputError) as unknown:
        read({"x" * 400_000: "y"})
    with pytest.raises(InputError) as wrong:
        read({f"filter[{'x' * 400_000}]": file(b"y")})

    assert len(unknown.value.field or "") == len(wrong.value.field or "") == 80
    # The rest of the message lists the endpoint's parameters.
    assert len(str(unknown.value)) < 300
