"""The contract of thumbnails: on SQLite, Elasticsearch and OpenSearch."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.store.elastic import ElasticThumbnails, Shape
from common.store.elastic.connection import Connection
from common.store.sqlite import SqliteThumbnails
from common.store.thumbnails import Owner, Thumbnail, Thumbnails
from support.waiting import wait_until

STORES = [
    "sqlite",
    pytest.param("elasticsearch", marks=pytest.mark.elasticsearch),
    pytest.param("opensearch", marks=pytest.mark.opensearch),
]


@pytest.fixture(params=STORES)
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Thumbnails]]:
    """Return a function that opens the thumbnails of this test again, as another process does."""
    if request.param == "sqlite":
        yield lambda: SqliteThumbnails(tmp_path / "home" / "match.db-thumbnails")
        return
    url, index = request.getfixturevalue(f"{request.param}_url"), f"test-{uuid.uuid4().hex}"
    opened: list[Connection] = []

    def connect() -> Thumbnails:
        opened.append(Connection(url, index=index, timeout_s=30))
        return ElasticThumbnails(opened[-1], index=index, shape=Shape(replicas="0"))

    yield connect
    opened[0].cluster().delete(f"/{index}-thumbnails-1")
    for connection in opened:
        connection.close()


@pytest.fixture
def thumbnails(connect: Callable[[], Thumbnails]) -> Thumbnails:
    return connect()


def thumbnail(seq: int, webp: bytes = b"webp") -> Thumbnail:
    return Thumbnail(Owner(seq=seq, filepath=f"{seq}.jpg", collection="shop"), webp)


def test_thumbnail_is_read_by_another_process(connect: Callable[[], Thumbnails]) -> None:
    connect().put([thumbnail(7, b"\0one"), thumbnail(2**53, b"two")])

    other = connect()

    assert (other.get(7), other.get(2**53), other.get(8)) == (b"\0one", b"two", None)


def test_thumbnail_is_replaced(thumbnails: Thumbnails) -> None:
    thumbnails.put([thumbnail(7, b"old")])

    thumbnails.put([thumbnail(7, b"new")])

    assert thumbnails.get(7) == b"new"


def test_deleted_thumbnails_are_gone(thumbnails: Thumbnails) -> None:
    thumbnails.put([thumbnail(seq) for seq in (1, 2, 3)])

    thumbnails.delete([1, 3, 4])

    assert [thumbnails.get(seq) for seq in (1, 2, 3, 4)] == [None, b"webp", None, None]


def test_owners_are_listed_in_pages(thumbnails: Thumbnails) -> None:
    thumbnails.put([thumbnail(seq) for seq in (30, 10, 20)])
    wait_until(lambda: len(thumbnails.owners_after(0, limit=10)) == 3, "a search finds the thumbnails")

    first, second = thumbnails.owners_after(0, limit=2), thumbnails.owners_after(20, limit=2)

    assert [owner.seq for owner in first] == [10, 20]
    assert second == [Owner(seq=30, filepath="30.jpg", collection="shop")]
