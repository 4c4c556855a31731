"""Batches of searches over HTTP, with a store in memory."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.access.keys import Keyring, Scope
from api.new_key import table
from api.routes import search_batch
from api.sources import Source
from api.use_cases import search_many
from api.use_cases.search_images import SearchResult
from common.config import Settings
from common.errors import StoreError, StoreUnavailable
from common.images.orientations import turn
from common.search import SearchOptions
from common.store.base import Record
from support.records import record, signature
from support.stores import MemoryStore

NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(*queries: Any) -> bytes:
    return b"".join(json.dumps(query).encode() + b"\n" for query in queries)


def post(client: FlaskClient, *queries: Any, path: str = "/search/batch", **headers: str) -> Any:
    return client.post(path, data=lines(*queries), headers=NDJSON | headers)


def results(client: FlaskClient, *queries: Any, **options: Any) -> list[Any]:
    reply = post(client, *queries, **options)
    assert reply.status_code == 200, reply.text
    return [json.loads(line) for line in reply.data.splitlines()]


def codes(answered: Sequence[Any]) -> list[str | None]:
    return [line.get("code") for line in answered]


def fast(filepath: str, **more: Any) -> dict[str, Any]:
    return {"filepath": filepath, "mode": "fast", **more}


@pytest.fixture(autouse=True)
def stored(memory_store: MemoryStore) -> list[Record]:
    """Images in turned pairs, of two albums; the last one is featureless."""
    rows = [signature(number) for number in range(6)]
    turned = [turn(row)[3] for row in rows]
    records = [
        record(f"{number}.jpg", number + 1, row, metadata={"album": "ab"[number % 2]})
        for number, row in enumerate([*rows, *turned])
    ]
    records.append(record("plain.jpg", 100, np.zeros_like(rows[0])))
    memory_store.put(records)
    return records


@pytest.fixture
def with_settings(make_client: Callable[..., FlaskClient], real_redis: Redis) -> Callable[..., FlaskClient]:
    return lambda **changes: make_client(real_redis, settings=Settings(max_image_bytes=100_000, **changes))


@pytest.mark.parametrize("together", [1, 4, 256])
def test_each_line_has_the_result_of_a_single_search(
    client: FlaskClient, stored: list[Record], monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(search_many, "TOGETHER", together)
    options: list[dict[str, Any]] = [
        {},
        {"limit": 1},
        {"offset": 1},
        {"min_score": 10},
        {"all_orientations": False},
        {"filter": {"album": "a"}},
        {"mode": "auto"},
        {"mode": "thorough", "limit": 3},
    ]
    queries = [fast(each.filepath) | more for each in stored for more in options]

    answered = results(client, *queries)

    singly = [client.post("/search", json=query).json for query in queries]
    keys = ("status", "error", "result", "mode", "code")
    assert [{key: line.get(key) for key in keys} for line in answered] == [
        {key: reply.get(key) for key in keys} for reply in singly
    ]
    assert [line["line"] for line in answered] == [*range(1, len(queries) + 1)]
    assert {len(line["result"]) for line in answered} >= {0, 1, 2}


def test_a_bad_line_does_not_fail_the_others(client: FlaskClient) -> None:
    bad = [
        b"not JSON",
        b"[1]",
        b'{"filepath": "0.jpg", "limit": "1"}',
        b'{"filepath": "0.jpg", "limt": 1}',
        b'{"filepath": "0.jpg", "url": "http://example.org/"}',
        b"{}",
        b'{"filepath": "unknown.jpg"}',
        b'{"filepath": "0.jpg", "collection": "unknown"}',
        b'{"url": "http://192.0.2.1/a.jpg"}',
        b'{"filepath": "0.jpg", "filter": {"a": [1]}}',
        b'{"filepath": "\xff"}',
    ]
    good = json.dumps(fast("0.jpg")).encode()
    body = b"\n".join(line for each in bad for line in (each, good))

    reply = client.post("/search/batch", data=body, headers=NDJSON)

    answered = [json.loads(line) for line in reply.data.splitlines()]
    assert codes(answered[::2]) == [
        "wrong_parameter",
        "wrong_parameter",
        "wrong_parameter",
        "unknown_parameter",
        "wrong_parameter",
        "missing_parameter",
        "unknown_filepath",
        "unknown_collection",
        "private_address",
        "wrong_parameter",
        "wrong_parameter",
    ]
    assert all(line["status"] == "fail" and line["result"] == [] and "field" in line for line in answered[::2])
    assert all(line["status"] == "ok" and line["result"][0]["filepath"] == "0.jpg" for line in answered[1::2])


def test_a_line_is_searched_in_its_own_collection(client: FlaskClient, memory_store: MemoryStore) -> None:
    memory_store.put([record("a", seq=1, collection="one"), record("a", seq=2, collection="two")])

    answered = results(
        client,
        fast("a"),
        fast("a", collection="two"),
        fast("a", collection="default"),
        path="/search/batch?collection=one",
    )

    assert codes(answered) == [None, None, "unknown_filepath"]


def test_a_key_searches_only_its_own_collections(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path, memory_store: MemoryStore
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(table("a", [Scope.READ], "key a", ["a"]) + table("writer", [Scope.WRITE], "key writer"))
    client = make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))
    memory_store.put([record("x", seq=1, collection="a"), record("x", seq=2, collection="b")])
    queries = [fast("x", collection="a"), fast("x", collection="b"), fast("x", collection="none")]

    answered = results(client, *queries, path="/search/batch?collection=a", Authorization="Bearer key a")
    denied = post(client, *queries, path="/search/batch?collection=a", Authorization="Bearer key writer")

    assert codes(answered) == [None, "unknown_collection", "unknown_collection"]
    assert (denied.status_code, denied.json["code"]) == (403, "missing_scope")


def test_searches_by_stored_images_share_calls(client: FlaskClient, stored: list[Record], memory_store: Any) -> None:
    calls = []
    for name in ("candidates", "metadata"):
        original = getattr(memory_store, name)

        def count(*args: Any, original: Any = original, name: str = name, **options: Any) -> Any:
            calls.append(name)
            return original(*args, **options)

        setattr(memory_store, name, count)

    answered = results(client, *[fast(each.filepath) for each in stored])

    assert codes(answered) == [None] * (len(stored) - 1) + ["featureless"]
    assert calls == ["candidates", "metadata"]


@pytest.mark.parametrize("most", [1, 100, 1000])
def test_candidates_of_a_call_are_bounded(
    client: FlaskClient, stored: list[Record], memory_store: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(search_many, "CANDIDATES", most)
    original = memory_store.candidates
    requested = []

    def count(queries: Any, *, limit: int, **options: Any) -> Any:
        requested.append(len(queries) * limit)
        return original(queries, limit=limit, **options)

    memory_store.candidates = count
    images = stored[:-1]
    # Each requests 50 candidates.
    at_once = max(50, most)

    answered = results(client, *[fast(each.filepath, all_orientations=False, limit=50) for each in images])

    assert [line["result"][0]["filepath"] for line in answered] == [each.filepath for each in images]
    assert max(requested) <= at_once
    assert len(requested) == -(-50 * len(images) // at_once)


def test_metadata_are_read_while_results_are_taken(
    client: FlaskClient, stored: list[Record], memory_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_many, "MATCHES", 2)
    monkeypatch.setattr(search_batch, "REPLY_BYTES", 100)
    original = memory_store.metadata
    read = []

    def count(filepaths: Any, **options: Any) -> Any:
        read.append(len(filepaths))
        return original(filepaths, **options)

    memory_store.metadata = count

    answered = results(client, *[fast(each.filepath) for each in stored])

    assert codes(answered) == [None] + ["overloaded"] * (len(stored) - 1)
    assert read == [2]


class CountedSearches:
    """Searches with a download, which find nothing and are counted."""

    def __init__(self) -> None:
        self.begun = 0

    def search(self, *_: Any, **__: Any) -> SearchResult:
        self.begun += 1
        return SearchResult([], "fast", is_featureless=False, collection="default")


def test_few_searches_with_downloads_are_ahead() -> None:
    images: Any = CountedSearches()
    item = search_many.SearchItem(
        source=Source("image", url="http://192.0.2.1/a.jpg"), options=SearchOptions(all_orientations=True), mode="fast"
    )
    answered = search_many.SearchMany(images).search([item] * 20, client="", within_s=3600)

    first = next(answered)
    begun = images.begun
    rest = list(answered)

    assert isinstance(first, SearchResult)
    assert begun <= search_many.AHEAD
    assert (len(rest), images.begun) == (19, 20)


def test_too_many_lines_are_a_413(with_settings: Callable[..., FlaskClient]) -> None:
    client = with_settings(max_search_lines=2)

    accepted = post(client, fast("0.jpg"), fast("1.jpg"))
    rejected = post(client, fast("0.jpg"), fast("1.jpg"), fast("2.jpg"))

    assert accepted.status_code == 200
    assert (rejected.status_code, rejected.json["code"], rejected.json["field"]) == (413, "too_large", "body")


def test_a_large_body_is_a_413(with_settings: Callable[..., FlaskClient]) -> None:
    client = with_settings(max_search_batch_bytes=1024)

    reply = post(client, *[fast("0.jpg")] * 100)

    assert (reply.status_code, reply.json["code"]) == (413, "too_large")


def test_a_line_that_is_too_long_fails_alone(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_batch, "LINE_BYTES", 100)

    answered = results(client, fast("0.jpg"), fast("x" * 200), fast("1.jpg"))

    assert codes(answered) == [None, "line_too_long", None]


def test_lines_beyond_the_time_may_be_sent_again(
    with_settings: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_many, "TOGETHER", 2)
    clock = iter([0.0, 1.0, 100.0, 100.0])
    monkeypatch.setattr(search_many, "monotonic", lambda: next(clock))
    client = with_settings(max_search_batch_s=10.0)

    answered = results(client, *[fast(f"{number}.jpg") for number in range(5)])

    assert codes(answered) == [None, None, "overloaded", "overloaded", "overloaded"]
    assert [line.get("retry_after") for line in answered] == [None, None, 1, 1, 1]


def test_time_is_checked_between_calls_of_the_store(
    with_settings: Callable[..., FlaskClient], memory_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_many, "CANDIDATES", 1)
    now = [0.0]
    monkeypatch.setattr(search_many, "monotonic", lambda: now[0])
    original = memory_store.candidates

    def slowly(*args: Any, **options: Any) -> Any:
        now[0] += 6.0
        return original(*args, **options)

    memory_store.candidates = slowly
    client = with_settings(max_search_batch_s=10.0)

    answered = results(client, *[fast(f"{number}.jpg") for number in range(4)])

    assert codes(answered) == [None, None, "overloaded", "overloaded"]


def test_lines_beyond_the_largest_reply_may_be_sent_again(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_batch, "REPLY_BYTES", 100)

    answered = results(client, fast("0.jpg"), fast("1.jpg"))

    assert (codes(answered), answered[1]["retry_after"]) == ([None, "overloaded"], 1)


def test_an_unavailable_store_fails_lines_not_the_request(client: FlaskClient, memory_store: Any) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the store is away")

    memory_store.candidates = fail

    answered = results(client, fast("0.jpg"), fast("unknown.jpg", limit=0), fast("1.jpg"))

    assert codes(answered) == ["store_unavailable", "wrong_parameter", "store_unavailable"]
    assert answered[0]["retry_after"] > 0


def test_a_search_that_the_store_rejects_fails_alone(client: FlaskClient, memory_store: Any) -> None:
    original = memory_store.candidates

    def reject(*args: Any, selection: Any, **options: Any) -> Any:
        if selection.where:
            raise StoreError("too many filters")
        return original(*args, selection=selection, **options)

    memory_store.candidates = reject

    answered = results(client, fast("0.jpg"), fast("1.jpg", filter={"album": "a"}), fast("2.jpg"))

    assert codes(answered) == [None, "internal_error", None]


def test_a_truncated_body_is_a_400(client: FlaskClient) -> None:
    body = lines(fast("0.jpg"))

    reply = client.post(
        "/search/batch", data=body, headers=NDJSON, environ_overrides={"CONTENT_LENGTH": f"{len(body) + 10}"}
    )

    assert (reply.status_code, reply.json["code"]) == (400, "truncated_body")


def test_an_empty_body_has_no_results(client: FlaskClient) -> None:
    assert results(client) == []


def test_other_media_types_are_a_415(client: FlaskClient) -> None:
    reply = client.post("/search/batch", json=fast("0.jpg"))

    assert (reply.status_code, reply.json["code"]) == (415, "unsupported_media_type")


def test_lines_without_a_slot_may_be_sent_again(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    client = make_client(real_redis, concurrency=0)

    answered = results(client, fast("0.jpg"), fast("1.jpg"))

    assert [(line["code"], line["retry_after"]) for line in answered] == [("overloaded", 1)] * 2
