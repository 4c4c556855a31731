"""Arbitrary metadata: accepted metadata can be stored, enqueued and filtered."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from api.forms.parameters import valid_metadata
from common.images.signature import LENGTH
from common.queue.items import AddItem, job_of
from common.store.base import Record, Selection
from common.store.labels import labels
from common.store.sqlite import SqliteStore

Fuzz = Callable[..., None]

EDGES = (
    "",
    "a",
    "a.b",
    ".",
    "\x00",
    "\ud800",
    "\ud83d\ude00",
    "🐈",
    "ä",
    "a" * 9000,
    '"',
    "\\",
    "true",
    "1",
    "null",
    "\u2028",
)
words = st.sampled_from(EDGES) | st.text(max_size=8)
numbers = st.sampled_from((0, -0.0, 1e308, 1e400, float("nan"), 10**400, 2**63, 0.1)) | st.integers() | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)
deep = st.integers(0, 60).map(lambda depth: '{"a":' * depth + "1" + "}" * depth)
long_numbers = st.integers(1, 6000).map(lambda digits: '{"a":' + "1" * digits + "}")
texts = (
    values.map(json.dumps)
    | values.map(lambda value: json.dumps({"a": value}))
    | deep
    | long_numbers
    | st.text(max_size=60)
)


def accepted(text: str) -> dict[str, Any] | None:
    try:
        return valid_metadata(text)
    except PydanticCustomError:
        return None


def test_metadata(fuzz: Fuzz) -> None:
    def check(text: str) -> None:
        metadata = accepted(text)
        if metadata is None:
            return
        assert metadata == json.loads(text)
        item = AddItem(filepath="a", url="b", metadata=metadata)
        assert job_of(item.job_json().encode())["metadata"] == metadata
        assert all(label.isascii() for label in labels(metadata))

    fuzz(texts, check, short=500, long=8_000)


def test_filters_on_both_stores(fuzz: Fuzz, memory_store: Any, tmp_path: Path) -> None:
    """The embedded store counts the same records as the store in memory."""
    store = SqliteStore(tmp_path / "match.db")
    store.prepare()
    seq = 0

    def check(value: tuple[str, dict[str, str]]) -> None:
        nonlocal seq
        text, where = value
        if (metadata := accepted(text)) is not None:
            seq += 1
            fields = {"seq": seq, "signatures": (np.ones(LENGTH, np.int8),), "added": 0, "width": 1, "height": 1}
            record = Record(filepath=f"{seq % 20}", metadata=metadata, **fields)
            for one in (store, memory_store):
                one.put([record])
            assert store.records([record.filepath])[record.filepath].metadata == metadata
        assert store.count(selection=Selection(where=where)) == memory_store.count(selection=Selection(where=where))

    keys = st.sampled_from(("a", "a.b", "", ".", "a.a.a")) | words
    where = st.dictionaries(keys, words | st.sampled_from(("true", "1.0", "1e+308", "0.1")), max_size=2)
    fuzz(
        st.tuples(texts, where.filter(lambda one: "\ud800" not in "".join([*one, *one.values()]))),
        check,
        short=100,
        long=1_000,
    )
    store.close()
