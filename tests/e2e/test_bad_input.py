"""Bad input over HTTP: each error names the field, and nothing is stored."""

import socket
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
IMAGE_ENDPOINTS = [("/add", "image", {"filepath": "bad"}), ("/search", "image", {}), ("/compare", "image1", {})]


def bomb() -> bytes:
    """Return a PNG of 40,000 by 40,000 pixels of which only the header is valid."""
    header = b"IHDR" + (40_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        (len(part) - 4).to_bytes(4, "big") + part + zlib.crc32(part).to_bytes(4, "big") for part in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture(autouse=True)
def nothing_is_stored(stack: Any) -> Iterator[None]:
    yield
    assert stack.ok("GET", "/count") == [0]


def failure(stack: Any, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    response = stack.call(method, path, **options)
    body = response.json()
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-ID"]
    assert (body["status"], body["result"], len(body["error"])) == ("fail", [], 1), body
    return response.status_code, body


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "filepath"),
        ({"filepath": ""}, "filepath"),
        ({"filepath": "x" * 8192}, "filepath"),
        ({"filepath": "a\nb"}, "filepath"),
        ({"filepath": "a\x00b"}, "filepath"),
        ({"filepath": b"\xff\xfe"}, "filepath"),
        ({"filepath": "a", "metadata": "[]"}, "metadata"),
        ({"filepath": "a", "metadata": "not json"}, "metadata"),
        ({"filepath": "a", "metadata": '{"a": NaN}'}, "metadata"),
        ({"filepath": "a", "metadata": "x" * 70_000}, "metadata"),
        ({"filepath": "a", "wait": "soon"}, "wait"),
        ({"filepath": "a", "wait": "-1"}, "wait"),
        ({"filepath": "a", "wait": "100000"}, "wait"),
        ({"filepath": "a", "url": "http://example.org/cat.jpg"}, "url"),
        ({"filepath": "a", "file_path": "b"}, "file_path"),
    ],
)
def test_wrong_parameter_of_add_is_named(stack: Any, photographs: Any, fields: Any, field: str) -> None:
    data = next(iter(photographs.values()))

    status, body = failure(stack, "POST", "/add", data=fields, files={"image": data})

    assert (status, body["field"], body["method"]) == (400, field, "add")
    assert field in body["error"][0]


@pytest.mark.parametrize(
    ("method", "path", "fields", "field"),
    [
        ("DELETE", "/delete", {}, "filepath"),
        ("DELETE", "/delete", {"filepath": ""}, "filepath"),
        ("DELETE", "/delete", {"filepath": "a", "url": "b"}, "url"),
        ("POST", "/search", {}, "image"),
        ("POST", "/search", {"url": ""}, "url"),
        ("POST", "/search", {"url": "http://example.org", "all_orientations": "maybe"}, "all_orientations"),
        ("POST", "/search", {"url": "http://example.org", "limit": "0"}, "limit"),
        ("POST", "/search", {"url": "http://example.org", "limit": "1001"}, "limit"),
        ("POST", "/search", {"url": "http://example.org", "offset": "-1"}, "offset"),
        ("POST", "/search", {"url": "http://example.org", "min_score": "101"}, "min_score"),
        ("POST", "/search", {"url": "http://example.org", "filepath": "a"}, "filepath"),
        ("POST", "/compare", {}, "image1"),
        ("POST", "/compare", {"url1": "http://example.org"}, "image2"),
        ("POST", "/compare", {"url": "http://example.org"}, "url"),
        ("POST", "/count", {"offset": "1"}, "offset"),
        ("POST", "/list", {"offset": "abc"}, "offset"),
        ("POST", "/list", {"offset": "-1"}, "offset"),
        ("POST", "/list", {"limit": "0"}, "limit"),
        ("POST", "/list", {"limit": "many"}, "limit"),
        ("POST", "/list", {"page": "1"}, "page"),
        ("POST", "/ping", {"filepath": "a"}, "filepath"),
    ],
)
def test_wrong_parameter_of_other_endpoints_is_named(
    stack: Any, method: str, path: str, fields: Any, field: str
) -> None:
    status, body = failure(stack, method, path, data=fields)

    assert (status, body["field"], body["method"]) == (400, field, path[1:])
    assert field in body["error"][0]


@pytest.mark.parametrize(("path", "field", "fields"), IMAGE_ENDPOINTS)
@pytest.mark.parametrize(
    ("data", "code"),
    [(b"just text", "not_an_image"), (SVG, "unsupported_format"), (b"<html></html>", "not_an_image")],
    ids=["text", "svg", "html"],
)
def test_file_that_is_not_an_image_is_refused(
    stack: Any, path: str, field: str, fields: Any, data: bytes, code: str
) -> None:
    files = {field: data} | ({"image2": data} if path == "/compare" else {})

    status, body = failure(stack, "POST", path, data=fields, files=files)

    assert (status, body["field"], body["code"]) == (422, field, code)


@pytest.mark.parametrize(("path", "field", "fields"), IMAGE_ENDPOINTS)
@pytest.mark.parametrize("make", [bomb, lambda: bomb()[:40]], ids=["bomb", "stump"])
def test_undecodable_image_is_refused(
    stack: Any, path: str, field: str, fields: Any, make: Callable[[], bytes]
) -> None:
    files = {field: make()} | ({"image2": make()} if path == "/compare" else {})

    status, body = failure(stack, "POST", path, data=fields | ({"wait": "30"} if path == "/add" else {}), files=files)

    assert (status, body["field"]) == (422, field)


def test_truncated_photograph_is_refused_with_its_reason(stack: Any, photographs: Any) -> None:
    data = next(iter(photographs.values()))

    status, body = failure(
        stack, "POST", "/add", data={"filepath": "cut", "wait": "30"}, files={"image": data[: len(data) // 2]}
    )

    assert (status, body["field"], body["task"]["state"]) == (422, "image", "failed")


def test_an_empty_file_is_named(stack: Any) -> None:
    status, body = failure(stack, "POST", "/add", data={"filepath": "a"}, files={"image": ("a.jpg", b"")})

    assert (status, body["field"], body["code"]) == (400, "image", "empty_image")


@pytest.mark.parametrize(("size", "fields"), [(70_000_000, {"field": "image"}), (100_000_000, {})])
def test_large_body_is_refused(stack: Any, size: int, fields: dict[str, str]) -> None:
    status, body = failure(
        stack, "POST", "/add", data={"filepath": "a"}, files={"image": b"\xff\xd8\xff" + bytes(size)}
    )

    assert (status, body["code"]) == (413, "too_large")
    assert body.items() >= fields.items()


def test_add_requires_image_or_url(stack: Any) -> None:
    status, body = failure(stack, "POST", "/add", data={"filepath": "a"})

    assert (status, body["field"], body["error"]) == (400, "image", ["image or url is required"])


@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "ftp://example.org/a.jpg",
        "file:///etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1/a.jpg",
        "http://2130706433/a.jpg",
        "http://[::1]/a.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/a.jpg",
        "http://user:secret@example.org/a.jpg",
        "http://example.org:6379/a.jpg",
    ],
)
@pytest.mark.parametrize(("path", "field"), [("/add", "url"), ("/search", "url"), ("/compare", "url1")])
def test_forbidden_url_is_refused(stack: Any, path: str, field: str, url: str) -> None:
    fields = {field: url} | {"/add": {"filepath": "a"}, "/search": {}, "/compare": {"url2": url}}[path]

    status, body = failure(stack, "POST", path, data=fields)

    assert (status, body["field"]) == (400, field)
    assert "secret" not in str(body)


@pytest.mark.parametrize(("path", "field"), [("/add", "url"), ("/search", "url")])
@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/nowhere.jpg", "http_not_found"),
        ("/to/http://127.0.0.1:1/a.jpg", None),
        ("/to//nowhere.jpg", "http_not_found"),
    ],
    ids=["404", "redirect to a private address", "redirect to 404"],
)
def test_failed_download_is_reported_with_its_reason(
    stack: Any, image_server: str, path: str, field: str, target: str, code: str | None
) -> None:
    fields = {"url": image_server + target} | ({"filepath": "a", "wait": "30"} if path == "/add" else {})

    status, body = failure(stack, "POST", path, data=fields)

    assert (status, body["field"]) == (422, field)
    assert code is None or body["code"] == code


@pytest.mark.parametrize("make", [lambda: b"{}", lambda: iter([b"{}"])], ids=["with its length", "in chunks"])
def test_body_of_another_media_type_is_refused(stack: Any, make: Callable[[], Any]) -> None:
    status, body = failure(stack, "POST", "/add", data=make(), headers={"Content-Type": "text/plain"})

    assert (status, body["code"]) == (415, "unsupported_media_type")


def test_unknown_path_is_404_and_wrong_method_405(stack: Any) -> None:
    missing, _ = failure(stack, "GET", "/nowhere")
    response = stack.call("GET", "/add")

    assert missing == 404
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    assert response.json()["method"] == "add"


def test_unknown_task_is_404(stack: Any) -> None:
    status, body = failure(stack, "GET", "/tasks/nobody")

    assert (status, body["code"]) == (404, "unknown_task")


def test_unsafe_request_id_is_replaced(stack: Any) -> None:
    kept = stack.call("GET", "/ping", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"]
    replaced = stack.call("GET", "/ping", headers={"X-Request-ID": "a b"}).headers["X-Request-ID"]

    assert kept == "abc-1"
    assert replaced != "a b"


def test_health_endpoints_need_no_parameters(stack: Any) -> None:
    assert stack.ok("GET", "/livez") == []
    assert stack.call("GET", "/readyz").json()["checks"]["redis"]["ok"] is True


NAMED = b"--x\r\nContent-Disposition: form-data; name=filepath\r\n\r\nabc"
NAMELESS = b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=x", NAMED),
        ("multipart/form-data; boundary=x", NAMELESS),
        ("multipart/form-data; boundary=x", b"no part at all"),
        ("multipart/form-data", NAMED + b"\r\n--x--\r\n"),
    ],
    ids=["incomplete", "nameless", "no part", "no boundary"],
)
def test_malformed_form_is_refused(stack: Any, content_type: str, body: bytes) -> None:
    status, answer = failure(stack, "POST", "/add", data=body, headers={"Content-Type": content_type})

    assert (status, answer["field"]) == (400, "body")


def test_malformed_chunks_are_refused(stack: Any) -> None:
    head = b"POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with socket.create_connection(("127.0.0.1", int(stack.url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\nabc\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"field":"body"' in answer


def test_form_with_too_many_parts_is_refused(stack: Any) -> None:
    files = [(f"part{number}", (None, b"x")) for number in range(100)]

    status, body = failure(stack, "POST", "/add", files=files)

    assert (status, body["code"]) == (413, "too_large")


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH"])
def test_unsupported_method_is_refused(stack: Any, method: str) -> None:
    status, body = failure(stack, method, "/add")

    assert (status, body["code"]) == (405, "method_not_allowed")
