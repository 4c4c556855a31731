"""Responses of Elasticsearch: a partial one is an error, and reasons quote no documents."""

import pytest

from common.errors import StoreUnavailable
from common.store.elastic.responses import hits, reason


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


def test_the_type_replaces_a_missing_reason() -> None:
    assert reason({"type": "master_not_discovered_exception", "reason": None}) == "master_not_discovered_exception"
