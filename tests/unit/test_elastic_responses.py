"""Responses of Elasticsearch: a partial one is an error, and reasons quote no documents."""

from typing import Any

import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
from elasticsearch import ApiError

from common.errors import StoreUnavailable
from common.store.elastic.responses import hits, reason, wrap_errors


@pytest.mark.parametrize(
    ("timed_out", "shards"),
    [
        (False, {"total": 2, "successful": 1, "skipped": 0, "failed": 1}),
        # Older versions report a missing shard in this form.
        (False, {"total": 2, "successful": 1, "skipped": 0, "failed": 0}),
        (True, {"total": 2, "successful": 2, "skipped": 0, "failed": 0}),
    ],
    ids=["a shard failed", "a shard is missing", "not in time"],
)
def test_a_partial_search_response_is_an_error(
    timed_out: bool,  # noqa: FBT001 - a parameter
    shards: dict[str, int],
) -> None:
    response = {"timed_out": timed_out, "_shards": shards, "hits": {"hits": [{"_id": "a"}]}}

    with pytest.raises(StoreUnavailable, match="some shards did not respond"):
        hits(response)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[i][1] primary shard is not active Timeout: [5s], request: [BulkShardRequest [index {source[secret]}]]",
            "[i][1] primary shard is not active Timeout: [5s]",
        ),
        ("failed to parse field [a]\nat [Source: (byte[])secret]", "failed to parse field [a]"),
    ],
)
def test_a_reason_quotes_no_documents(text: str, expected: str) -> None:
    assert reason({"type": "t", "reason": text}) == expected
    assert reason({"type": "t", "reason": "x", "caused_by": {"type": "t", "reason": text}}) == f"x: {expected}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"message": "User: arn:aws:iam::123456789012:user/me is not authorized to perform: es:ESHttpGet"},
            "User: … is not authorized to perform: es:ESHttpGet",
        ),
        (
            {"message": "The signature does not match.\n\nThe Canonical String should have been 'GET'"},
            "The signature does not match.",
        ),
        ({"Message": "Your request: '/_x' is not allowed."}, "Your request: '/_x' is not allowed."),
        ({"error": {"reason": "blocked"}}, "blocked"),
    ],
    ids=["a user", "a signature", "a path", "OpenSearch's own"],
)
def test_response_of_amazons_proxy_is_one_line_without_users(body: dict[str, Any], expected: str) -> None:
    meta = ApiResponseMeta(403, "1.1", HttpHeaders(), 0.1, NodeConfig("http", "search.lan", 9200))

    with pytest.raises(StoreUnavailable) as raised, wrap_errors("OpenSearch"):
        raise ApiError(str(body), meta, body)

    assert str(raised.value) == f"OpenSearch returned 403: {expected}"


def test_the_type_replaces_a_missing_reason() -> None:
    assert reason({"type": "master_not_discovered_exception", "reason": None}) == "master_not_discovered_exception"
