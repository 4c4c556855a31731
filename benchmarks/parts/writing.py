"""A collection of signatures as Match's records, and the rate at which records of any kind are written."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from parts.collection import BLOCK, Rows, filepath, metadata
from parts.timing import timed

from common.store.base import Record, Verdict
from common.store.elastic import ElasticStore

REQUEST = 500
THREADS = 4
# Sequence numbers come from a clock in microseconds: `/list` searches a large offset in a range of that kind.
FIRST_SEQ, STEP_SEQ = 1_700_000_000_000_000, 1_700

T = TypeVar("T")


def match_records(start: int, rows: Rows) -> list[Record]:
    return [
        Record(
            filepath=filepath(row),
            seq=FIRST_SEQ + STEP_SEQ * row,
            signatures=(signature,),
            metadata=metadata(row),
            added=FIRST_SEQ // 1000 + row,
            width=500,
            height=375,
        )
        for row, signature in enumerate(rows, start)
    ]


def newer(record: Record, count: int) -> Record:
    """Return the record with a higher sequence number, as of a request after `count` others."""
    return replace(record, seq=record.seq + STEP_SEQ * count)


def put(store: ElasticStore, records: Sequence[Record]) -> None:
    assert all(one.verdict is Verdict.STORED for one in store.put(records))


def rate(
    rows: Rows,
    make: Callable[[int, Rows], list[T]],
    write: Callable[[Sequence[T]], None],
    refresh: Callable[[], object],
    *,
    first: int = 0,
) -> float:
    """Write the rows from `first` on; return images a second. The creation of the records is not timed."""
    spent = 0.0
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(first, len(rows), BLOCK):
            block = make(start, rows[start : start + BLOCK])
            requests = [block[at : at + REQUEST] for at in range(0, len(block), REQUEST)]
            spent += timed(lambda requests=requests: list(pool.map(write, requests)))[0]
    return (len(rows) - first) / (spent + timed(refresh)[0])
