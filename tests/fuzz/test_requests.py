"""Arbitrary requests to the API in this process: each has a documented reply."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

from flask.testing import FlaskClient
from hypothesis import strategies as st

from api.access.keys import Keyring, hash_of
from api.app import REQUEST_ID
from api.forms.parameters import cursor
from api.forms.requests import LIST
from api.routes import ENDPOINTS
from api.routes.tasks import TASKS

Fuzz = Callable[..., None]
Sound = Callable[[Any], dict[str, Any]]

IMAGE = (Path(__file__).resolve().parents[2] / "examples" / "images" / "chelsea.jpg").read_bytes()
# /metrics replies with text, not with JSON.
PATHS = sorted({endpoint.path for endpoint in ENDPOINTS} - {"/metrics"})
PLAIN = sorted({name for endpoint in ENDPOINTS for kind in endpoint.parameters for name in kind.plain})
KEYED = sorted({name for endpoint in ENDPOINTS for kind in endpoint.parameters for name in kind.keyed})
METHODS = ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH")
# Values at the edges of common parsers.
EDGES = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1",
        "00",
        "1e3",
        "1_0",
        "٣",
        "NaN",
        "inf",
        "-0",
        "9" * 30,
        "2147483648",
        "9223372036854775808",
    ),
    *("true", "TRUE", "null", "None", "[]", "{}", "a,b", "a=b", "a[b]", "%00", "%", "..", "../..", "*", "?", "'", '"'),
    *("\x00", "\n", "\r\n", "\x7f", "\u2028", "\ufeff", "\ufffd", "\ud800", "ä", "猫", "🐈", "a" * 3000, "{" * 3000),
    *("http://example.org/a.jpg", "http://127.0.0.1/", "ftp://a", "//a", "http://[::1", "failed", "pending"),
)
words = st.sampled_from(EDGES) | st.text(max_size=40)
texts = st.builds("{}{}".format, words, words) | words
metadata = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
).map(json.dumps)
brackets = st.sampled_from(
    ("", "[", "]", "[]", "[0]", "[1]", "[99]", "[100]", "[1000]", "[-1]", "[٣]", "[a][b]", "[[0]]")
)
names = st.one_of(
    st.sampled_from([*PLAIN, *KEYED]),
    st.builds("{}{}".format, st.sampled_from(KEYED), brackets),
    st.builds("{}[{}]".format, st.sampled_from(KEYED), words),
    words,
)
fields = st.lists(st.tuples(names, texts | metadata), max_size=6)
encoded = fields.map(lambda pairs: urlencode(pairs, errors="surrogatepass")) | st.binary(max_size=60)
paths = st.sampled_from(PATHS).map(lambda path: path.replace("<id>", "0" * 32).replace("<name>", "shop"))
anything = st.sampled_from((b"", b"0", b"a", IMAGE, IMAGE[:100], b"<svg")) | st.binary(max_size=100)


def test_urlencoded_forms(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    requests = st.tuples(paths, st.sampled_from(METHODS[:3]), encoded, encoded)

    def check(request: tuple[str, str, Any, Any]) -> None:
        path, method, query, body = request
        query = query if isinstance(query, str) else query.decode("latin-1")
        form = {"data": body, "content_type": "application/x-www-form-urlencoded"} if body else {}
        sound(client.open(path, method=method, query_string=query, **form))

    fuzz(requests, check, short=300, long=6_000)


def test_json_bodies(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    values = metadata | st.sampled_from(("NaN", "1e999", "[" * 2000, '{"a": 1, "a": 2}', '"\\ud800"'))
    pairs = st.tuples(names | st.sampled_from(KEYED), values).map(lambda pair: f"{json.dumps(pair[0])}: {pair[1]}")
    bodies = st.lists(pairs, max_size=4).map(lambda lines: f"{{{', '.join(lines)}}}".encode(errors="surrogatepass"))
    requests = st.tuples(paths, st.sampled_from(METHODS[:4]), torn(bodies))

    def check(request: tuple[str, str, bytes]) -> None:
        path, method, body = request
        sound(client.open(path, method=method, data=body, content_type="application/json; charset=utf-8"))

    fuzz(requests, check, short=300, long=6_000)


def quoted(name: str) -> str:
    return name.replace('"', "%22").replace("\n", "%0A").replace("\r", "%0D")


def as_part(part: tuple[str, str | None, bytes, str]) -> bytes:
    name, filename, data, more = part
    disposition = f'form-data; name="{quoted(name)}"' + ("" if filename is None else f'; filename="{quoted(filename)}"')
    return f"Content-Disposition: {disposition}\r\n{more}\r\n".encode("utf-8", "surrogatepass") + data


HEADERS = ("", "Content-Type: image/jpeg\r\n", "Content-Type: text/plain; charset=utf-16\r\n", "a\r\n", "\x00: b\r\n")
parts = st.tuples(
    names,
    st.none() | words,
    anything | texts.map(lambda text: text.encode(errors="surrogatepass")),
    st.sampled_from(HEADERS),
).map(as_part)
whole_forms = st.lists(parts | st.binary(max_size=40), max_size=5).map(
    lambda chosen: b"".join(b"--x\r\n" + part + b"\r\n" for part in chosen) + b"--x--\r\n"
)


@st.composite
def torn(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Return bytes unchanged, cut, or with a piece replaced, doubled or deleted."""
    data = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(len(data), begin + 20)))
        data = (
            data[:begin]
            + draw(st.sampled_from((b"", b"\r\n", b"--x", data[begin:end] * 2)) | st.binary(max_size=8))
            + data[end:]
        )
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data


TYPES = (
    *["multipart/form-data; boundary=x"] * 8,
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=y",
    'multipart/form-data; boundary="x',
    "multipart/form-data; boundary=x; charset=utf-16",
    "multipart/mixed; boundary=x",
    "text/plain",
)


def test_multipart_forms(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    requests = st.tuples(paths, torn(whole_forms), st.sampled_from(TYPES))

    def check(request: tuple[str, bytes, str]) -> None:
        path, body, content_type = request
        sound(client.post(path, data=body, content_type=content_type))

    fuzz(requests, check, short=400, long=6_000)


def test_images_in_forms(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    requests = st.tuples(
        st.sampled_from(("/add", "/search", "/compare")), st.lists(st.tuples(names, texts), max_size=2), anything
    )

    def check(request: tuple[str, list[tuple[str, str]], bytes]) -> None:
        path, more, data = request
        known = {
            "/add": [("filepath", "a"), ("image", data)],
            "/search": [("image", data)],
            "/compare": [("image1", data), ("image2", data)],
        }[path]
        body = b"".join(
            b"--x\r\n"
            + as_part(
                (
                    name,
                    "a" if isinstance(value, bytes) else None,
                    value if isinstance(value, bytes) else value.encode(errors="surrogatepass"),
                    "",
                )
            )
            + b"\r\n"
            for name, value in [*known, *more]
        )
        sound(client.post(path, data=body + b"--x--\r\n", content_type="multipart/form-data; boundary=x"))

    fuzz(requests, check, short=150, long=1_000)


def test_metadata_in_forms(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    def check(text: str) -> None:
        form = {"filepath": "a", "url": "http://example.org/a.jpg", "metadata": text}
        reply = client.post(
            "/add", data=urlencode(form, errors="surrogatepass"), content_type="application/x-www-form-urlencoded"
        )
        assert sound(reply).get("field", "metadata") == "metadata"

    fuzz(
        torn(metadata.map(lambda text: text.encode(errors="surrogatepass"))).map(
            lambda data: data.decode(errors="surrogateescape")
        ),
        check,
        short=200,
        long=2_500,
    )


def test_task_ids(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    added = client.post("/add", data={"filepath": "a", "url": "http://example.org/a.jpg"}).json["task"]["id"]
    known = st.sampled_from(
        (added, added[:-1], added.upper(), f"{added}\n", f"{added}/", "retry", "../tasks", "match:seq", "*")
    )
    ids = st.one_of(
        known.map(str.encode), texts.map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=40)
    )
    requests = st.tuples(ids, st.sampled_from(("", "/retry", "/retry/", "/")), st.sampled_from(METHODS))

    def check(request: tuple[bytes, str, str]) -> None:
        task_id, rest, method = request
        reply = client.open(f"/tasks/{quote_from_bytes(task_id, safe='/')}{rest}", method=method)
        if method != "HEAD":
            sound(reply)
        assert reply.status_code in {200, 400, 404, 405, 409}

    fuzz(requests, check, short=200, long=3_000)


def cursors(kind: str) -> st.SearchStrategy[str]:
    """Return valid cursors, damaged ones and other text."""
    whole = st.integers(0, 2**70).map(str) | st.builds(
        "{}-{:032x}".format, st.integers(0, 10**17), st.integers(0, 2**128 - 1)
    )
    given_out = st.builds(
        cursor,
        st.sampled_from((kind, LIST, TASKS)),
        whole | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    )
    return given_out | st.builds(lambda text, at: text[:at] + text[at + 1 :], given_out, st.integers(0, 20)) | texts


def test_cursors(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    lists = st.sampled_from(
        (("/list", {}, LIST), ("/tasks", {"state": "failed"}, TASKS), ("/tasks", {"state": "pending"}, TASKS))
    )
    requests = lists.flatmap(lambda one: st.tuples(st.just(one), cursors(one[2])))

    def check(request: tuple[tuple[str, dict[str, str], str], str]) -> None:
        (path, more, _), text = request
        reply = client.get(path, query_string=urlencode({**more, "cursor": text}, errors="surrogatepass"))
        assert sound(reply).get("field", "cursor") == "cursor"
        assert reply.status_code in {200, 400}

    fuzz(requests, check, short=300, long=4_000)


def test_filters(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    keys = st.builds("filter[{}]".format, texts) | st.sampled_from(
        ("filter", "filter[", "filter]", "filter[a][b]", "filter[][]")
    )
    requests = st.tuples(st.sampled_from(("/count", "/list")), st.lists(st.tuples(keys, texts), max_size=20))

    def check(request: tuple[str, list[tuple[str, str]]]) -> None:
        path, params = request
        sound(client.get(path, query_string=urlencode(params, errors="surrogatepass")))

    fuzz(requests, check, short=200, long=4_000)


# Servers accept header values in latin-1 without line breaks.
header_texts = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
HEADER_NAMES = (
    *("Prefer", "X-Request-ID", "Idempotency-Key", "traceparent", "tracestate", "Content-Type", "Accept", "Origin"),
    *("Authorization", "X-Forwarded-For", "Forwarded", "Range", "Expect", "Cookie", "If-None-Match", "Host"),
    *("Transfer-Encoding", "Content-Length", "Access-Control-Request-Method"),
)
HEADER_VALUES = (
    *("wait=1", "wait=", "wait=-1", "wait=9" * 40, "respond-async, wait=0", "wait=\xb2", "00-" + "0" * 32, "bytes=0-"),
    *("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "Bearer ", "Basic !!!", "Digest a", "100-continue", "*", "a" * 300),
    *("1, 1", "chunked", "multipart/form-data; boundary=", "text/plain; charset=x"),
)


def test_headers(fuzz: Fuzz, client: FlaskClient, sound: Sound) -> None:
    headers = st.lists(
        st.tuples(st.sampled_from(HEADER_NAMES), st.sampled_from(HEADER_VALUES) | header_texts), max_size=4
    )
    forms = st.sampled_from(({"filepath": "a", "url": "http://example.org/a.jpg"}, {}))
    requests = st.tuples(st.sampled_from(("/add", "/ping", "/search", "/tasks/retry", "/nowhere")), forms, headers)

    def check(request: tuple[str, dict[str, str], list[tuple[str, str]]]) -> None:
        path, form, headers = request
        reply = client.post(path, data=form, headers=headers)
        sound(reply)
        assert REQUEST_ID.fullmatch(reply.headers["X-Request-ID"])

    fuzz(requests, check, short=300, long=5_000)


def test_keys(fuzz: Fuzz, client_of: Callable[..., FlaskClient], sound: Sound, tmp_path: Path) -> None:
    """Only the exact key is accepted, and only as a bearer token."""
    key = "key-of-the-reader"
    (tmp_path / "keys").write_text(f'[[keys]]\nname = "reader"\nsha256 = "{hash_of(key)}"\nscopes = ["read"]\n')
    client = client_of(keyring=Keyring(tmp_path / "keys"))
    secrets = st.sampled_from((key, key.upper(), key[:-1], f"{key}=", f"{key} {key}", f"{key},", "")) | header_texts
    headers = st.builds(
        "{}{}{}".format, st.sampled_from(("Bearer ", "bearer\t", "Basic ", "Digest ", "")), secrets, st.just("")
    )
    requests = st.tuples(st.sampled_from(("/count", "/add", "/tasks/retry")), headers | header_texts)

    def check(request: tuple[str, str]) -> None:
        path, header = request
        reply = client.post(path, headers={"Authorization": header})
        sound(reply)
        known = header.partition(" ")[0].lower() == "bearer" and header.partition(" ")[2].strip() == key
        assert reply.status_code == ((200 if path == "/count" else 403) if known else 401)

    fuzz(requests, check, short=200, long=5_000)
