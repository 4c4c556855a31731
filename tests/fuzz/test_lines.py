"""Bodies of JSON lines in arbitrary blocks: each line is read once and has its own outcome."""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

from flask.testing import FlaskClient
from hypothesis import strategies as st

from api.errors import ERRORS
from api.forms.lines import READ_BYTES, Line, blocks

Fuzz = Callable[..., None]

MAX_LINE_BYTES = 50
pieces = st.sampled_from((b"\n", b"\r\n", b" ", b"a", b"a" * 49, b"a" * 51, b"a" * READ_BYTES)) | st.binary(max_size=60)


def test_bodies_as_lines(fuzz: Fuzz) -> None:
    def check(body: bytes) -> None:
        lines = [
            line
            for block in blocks(BytesIO(body), content_length=len(body), max_bytes=MAX_LINE_BYTES)
            for line in block
        ]

        numbered = [
            Line(number, None if len(text) > MAX_LINE_BYTES else text)
            for number, text in enumerate(body.split(b"\n"), start=1)
        ]
        assert lines == [line for line in numbered if line.data is None or line.data.strip()]

    fuzz(st.lists(pieces, max_size=30).map(b"".join), check, short=300, long=8_000)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
urls = st.sampled_from(("http://example.org/a.jpg", "http://127.0.0.1/", "ftp://a", "\ud800", ""))
filepaths = st.sampled_from(("a", "", "a\x00", "\ud800", "\ufffd", "a" * 3000))
sound_lines = st.fixed_dictionaries(
    {"url": urls | values, "filepath": filepaths | values},
    optional={"metadata": values, "filepaht": values, "\ud800": values},
)
written = (sound_lines | values).map(json.dumps).map(str.encode)
lines = st.one_of(
    written,
    written.flatmap(lambda text: st.integers(0, len(text)).map(lambda end: text[:end])),
    st.sampled_from((b"", b" ", b"[" * 2000, b'{"a":' * 2000, b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"1" * 5000)),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
)


def test_lines_of_a_batch(fuzz: Fuzz, client: FlaskClient) -> None:
    def check(sent: list[bytes]) -> None:
        reply = client.post("/add/batch", data=b"\n".join(sent), content_type="application/x-ndjson")
        outcomes: list[dict[str, Any]] = [json.loads(text) for text in reply.data.splitlines()]

        assert reply.status_code == 200
        assert [outcome["line"] for outcome in outcomes] == [
            at for at, text in enumerate(sent, start=1) if text.strip()
        ]
        for outcome in outcomes:
            assert (outcome["status"] == "fail") == bool(outcome["error"]) == ("task" not in outcome)
            assert outcome.get("code", "truncated_body") in ERRORS.keys() - {"internal_error"}

    fuzz(st.lists(lines, max_size=8), check, short=200, long=3_000)
