"""The import of an index of image-match, from a fake index into the embedded store."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.images.signature import sign
from common.store.base import Record, Selection, Tombstone
from common.store.import_elasticsearch import Importing, ImportProgress, Index, SourceError, main
from common.store.sqlite import SqliteStore
from support.image_match_index import FIRST, ImageMatchIndex, document, serving_index

IMAGES = 8
NOW = 2_000_000_000_000_000


def pixels(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    """Documents of image-match, one a second."""
    return [
        document(f"http://192.0.2.1/{number}.jpg", pixels(number), number=number, metadata={"number": number})
        for number in range(IMAGES)
    ]


@pytest.fixture
def index(documents: list[dict[str, Any]]) -> Iterator[ImageMatchIndex]:
    with serving_index(ImageMatchIndex(documents)) as index:
        yield index


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "match.db")) as store:
        store.prepare()
        yield store


@pytest.fixture
def run(index: ImageMatchIndex, store: SqliteStore, tmp_path: Path) -> Callable[..., dict[str, int]]:
    """Return a function that imports the index, and returns the counts."""

    def run(**options: Any) -> dict[str, int]:
        with closing(Index(index.url, "images")) as source:
            importing = Importing(
                index=source,
                store=store,
                progress=ImportProgress(tmp_path / "progress.json"),
                report=lambda _: None,
                **options,
            )
            return dict(importing.run())

    return run


def names(store: SqliteStore) -> list[str]:
    return store.filepaths_after(0, limit=100).filepaths


def test_images_are_stored_with_equal_signatures(
    run: Callable[..., dict[str, int]], store: SqliteStore, index: ImageMatchIndex
) -> None:
    counts = run()

    record = store.records(names(store))["http://192.0.2.1/3.jpg"]
    assert counts == {"stored": IMAGES}
    assert np.array_equal(record.signatures[0], sign(pixels(3)))
    assert (record.metadata, record.url, record.width) == ({"number": 3}, "http://192.0.2.1/3.jpg", 0)
    assert record.added == (FIRST.replace(tzinfo=UTC).timestamp() + 3) * 1000
    assert index.open_scrolls == 0


def test_images_are_listed_in_the_order_of_their_times(
    run: Callable[..., dict[str, int]], index: ImageMatchIndex, store: SqliteStore
) -> None:
    index.documents.reverse()

    run()

    assert names(store) == [f"http://192.0.2.1/{number}.jpg" for number in range(IMAGES)]


@pytest.mark.parametrize("calls", range(1, 6))
def test_an_interrupted_import_resumes(
    run: Callable[..., dict[str, int]], index: ImageMatchIndex, store: SqliteStore, tmp_path: Path, calls: int
) -> None:
    # Two documents have the time of the last one of the first page.
    index.documents[3] = index.documents[3] | {"timestamp": index.documents[2]["timestamp"]}
    index.calls_left = calls
    with pytest.raises(SourceError):
        run()
    index.calls_left = 100

    counts = run()

    assert counts == {"stored": IMAGES}
    assert len(names(store)) == IMAGES
    assert not (tmp_path / "progress.json").exists()


def test_a_newer_request_outranks_the_import(run: Callable[..., dict[str, int]], store: SqliteStore) -> None:
    changed, deleted = "http://192.0.2.1/1.jpg", "http://192.0.2.1/2.jpg"
    record = Record(filepath=changed, seq=NOW, signatures=(sign(pixels(99)),), added=0, width=1, height=1)
    store.put([record, Tombstone(filepath=deleted, seq=NOW + 1, added=0)])

    counts = run()

    assert counts == {"stored": IMAGES - 2, "superseded": 2}
    assert store.records([changed, deleted])[changed].seq == NOW


def test_the_newest_document_of_a_path_wins(
    run: Callable[..., dict[str, int]], index: ImageMatchIndex, store: SqliteStore
) -> None:
    index.documents = [one | {"path": "cat"} for one in index.documents]

    run()

    assert names(store) == ["cat"]
    assert store.metadata(["cat"])["cat"] == {"number": IMAGES - 1}


def test_invalid_documents_are_counted_and_others_stored(
    run: Callable[..., dict[str, int]], index: ImageMatchIndex, store: SqliteStore
) -> None:
    signature = index.documents[0]["signature"]
    index.documents[:7] = [
        index.documents[0] | {"path": ""},
        index.documents[1] | {"path": "a\nb"},
        index.documents[2] | {"signature": signature[:-1]},
        index.documents[3] | {"signature": [-value if index < 9 else value for index, value in enumerate(signature)]},
        index.documents[4] | {"metadata": {str(number): "x" * 8000 for number in range(9)}},
        index.documents[5] | {"metadata": {"text": "x" * 8193}},
        index.documents[6] | {"metadata": [10**1000]},
    ]

    counts = run()

    assert counts == {"rejected": 7, "stored": IMAGES - 7}
    assert len(names(store)) == IMAGES - 7


def test_documents_without_time_or_object_are_stored(
    run: Callable[..., dict[str, int]], index: ImageMatchIndex, store: SqliteStore
) -> None:
    index.documents = [index.documents[0] | {"path": "new"}, {**index.documents[1], "metadata": [1, 2], "path": "old"}]
    del index.documents[1]["timestamp"]

    counts = run(collection="museum", keeps_url=False)

    selection = Selection(collection="museum")
    assert counts == {"stored": 2}
    assert store.filepaths_after(0, limit=9, selection=selection).filepaths == ["new", "old"]
    assert store.metadata(["old"], collection="museum")["old"] == {"metadata": [1, 2]}
    assert names(store) == []


def test_an_unwritable_home_is_reported_before_the_import(
    index: ImageMatchIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MATCH_STORE_URL", f"sqlite:///{tmp_path}/match.db")
    monkeypatch.setenv("MATCH_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["import_elasticsearch", index.url, "images"])

    code = main()

    err = capsys.readouterr().err
    assert (code, index.calls_left) == (1, 1_000)
    assert err.startswith(f"match import: MATCH_HOME: the progress cannot be written to {tmp_path}/file/home/import-")
    assert "Not a directory" in err


def test_the_command_reads_settings_and_reports(
    index: ImageMatchIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MATCH_STORE_URL", f"sqlite:///{tmp_path}/home/match.db")
    monkeypatch.setenv("MATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["import_elasticsearch", index.url, "images"])
    index.calls_left = 3

    first = main()
    index.calls_left = 100
    second = main()

    err = capsys.readouterr().err
    assert (first, second) == (1, 0)
    assert "answered 503: the cluster is down\nrun it again to resume" in err
    assert err.endswith(f"match import: {IMAGES} stored\n")
