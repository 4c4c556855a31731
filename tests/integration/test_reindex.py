"""Reindexing on a real index server: while the service writes, and after runs that ended early."""

import base64
import itertools
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from common.errors import StoreError
from common.images.signature import LENGTH
from common.store.base import Health, Record, Selection, Tombstone, Verdict, Written
from common.store.elastic import ElasticStore, Shape
from common.store.elastic.connection import Connection
from common.store.elastic.copying import Copying
from common.store.elastic.documents import identity
from support.index_servers import PRODUCTS, Product, connect
from support.records import deletion, patch, record, signature

# A run that waits for a line of input after each line that it reports.
RUN = """
import sys
from common.store.elastic import Shape
from common.store.elastic.connection import Connection
from common.store.elastic.copying import Copying
def report(line):
    print(line, flush=True)
    sys.stdin.readline()
cluster = Connection(sys.argv[1], index=sys.argv[2], timeout_s=20).cluster()
Copying(cluster, sys.argv[2], shape=Shape(), batch=10, grace_s=0, report=report).run()
"""

Run = Callable[..., int]


@pytest.fixture(params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Product:
    product: Product = request.param
    return product


@pytest.fixture
def url(product: Product, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{product.name.lower()}_url"))


@pytest.fixture
def index() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(url: str, index: str) -> Iterator[Elasticsearch]:
    with connect(url) as client:
        yield client
        for name in client.indices.get_alias(index=f"{index}-*"):
            client.indices.delete(index=name)


@pytest.fixture
def store(url: str, index: str) -> Iterator[ElasticStore]:
    with closing(ElasticStore(url, index=index, timeout_s=20, shape=Shape(shards=2))) as store:
        store.prepare()
        yield store


@pytest.fixture
def run(index: str, url: str) -> Iterator[Run]:
    """Copy to the end, and return the number of copied documents."""
    with closing(Connection(url, index=index, timeout_s=20)) as connection:

        def run(**options: Any) -> int:
            options = {"shape": Shape(), "batch": 10, "grace_s": 0} | options
            return Copying(connection.cluster(), index, **options).run()

        yield run


def stored(outcomes: Sequence[Written]) -> bool:
    return all(written.verdict is Verdict.STORED for written in outcomes)


def behind(client: Elasticsearch, alias: str) -> list[str]:
    return sorted(client.indices.get_alias(name=alias))


def indices(client: Elasticsearch, index: str) -> list[str]:
    return sorted(client.indices.get_alias(index=f"{index}-*"))


def raising(at: str) -> Callable[[str], None]:
    """Return a report that ends the run at the first line that begins so."""

    def report(line: str) -> None:
        if line.startswith(at):
            raise InterruptedError(line)

    return report


def test_new_index_replaces_the_old_one_completely(
    store: ElasticStore, client: Elasticsearch, index: str, run: Run
) -> None:
    blank = record("blank.jpg", 200, np.zeros(LENGTH, np.int8))
    both = record("both.jpg", 201, signature(7), signature(7))
    store.put([record(f"{seq}.jpg", seq, metadata={"n": [seq, {"deep": True}]}) for seq in range(1, 101)])
    store.put([deletion("5.jpg", 202), deletion("absent.jpg", 203), blank, both])

    run(shape=Shape(shards=1, vectors="flat"))

    assert indices(client, index) == behind(client, index) == [f"{index}-2"]
    assert store.filepaths(offset=0, limit=200).filepaths == [f"{n}.jpg" for n in range(1, 101) if n != 5] + [
        "blank.jpg",
        "both.jpg",
    ]
    assert store.records(["7.jpg"])["7.jpg"].metadata == {"n": [7, {"deep": True}]}
    assert len(store.records(["both.jpg"])["both.jpg"].signatures) == 2
    assert store.filepaths(offset=0, limit=9, selection=Selection(where={"n": "7"})).filepaths == ["7.jpg"]
    assert store.candidates(signature(9)[None], limit=1)[0][0].filepath == "9.jpg"
    assert [written.verdict for written in store.put([record("5.jpg", 6)])] == [Verdict.SUPERSEDED]
    assert store.health() == Health(reads=True, writes=True)
    settings = client.indices.get_settings(index=index, flat_settings=True)[f"{index}-2"]["settings"]
    assert settings["index.refresh_interval"] == "1000ms"


def test_reindex_keeps_patches(store: ElasticStore, run: Run) -> None:
    add = record("cat.jpg", 1, metadata={"n": 1})
    store.put([add, patch("cat.jpg", 5, {"a": 5}), patch("dog.jpg", 5, {"a": 5}), patch("cat.jpg", 7, {"b": 7})])

    run()

    before = store.metadata(["cat.jpg"])
    outcomes = store.put([add, patch("cat.jpg", 6, {"a": 6, "b": 6}), record("dog.jpg", 2)])
    after = store.metadata(["cat.jpg", "dog.jpg"])
    store.put([record("cat.jpg", 4, metadata={"n": 4})])
    assert stored(outcomes)
    assert before == {"cat.jpg": {"n": 1, "a": 5, "b": 7}}
    assert after == {"cat.jpg": {"n": 1, "a": 6, "b": 7}, "dog.jpg": {"a": 5}}
    assert store.metadata(["cat.jpg"]) == {"cat.jpg": {"n": 4, "a": 6, "b": 7}}


def test_reindex_may_be_repeated(client: Elasticsearch, index: str, store: ElasticStore, run: Run) -> None:
    store.put([record(f"{seq}.jpg", seq) for seq in range(1, 31)])

    for _ in range(3):
        run()

    assert behind(client, index) == [f"{index}-4"]
    assert store.count() == 30


def test_adds_and_deletes_during_reindex_are_kept(
    store: ElasticStore, client: Elasticsearch, index: str, run: Run
) -> None:
    store.put([record(f"{seq}.jpg", seq) for seq in range(1, 601)])
    seqs, ended = itertools.count(1_000), threading.Event()
    reasons: list[str] = []

    def write(worker: int) -> dict[str, Record | Tombstone]:
        """Write to this worker's filepaths, each item until it is stored; return the last item of each."""
        chance, last = random.Random(worker), {}
        while not ended.is_set():
            paths = chance.sample([f"{n}.jpg" for n in range(1, 900) if n % 4 == worker], 5)
            items = [
                deletion(path, next(seqs))
                if chance.random() < 0.3
                else record(path, next(seqs), metadata={"worker": worker})
                for path in paths
            ]
            while not stored(outcomes := store.put(items)):
                reasons.extend(written.reason for written in outcomes if written.verdict is Verdict.RETRY)
                time.sleep(0.01)
            last |= {item.filepath: item for item in items}
        return last

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, worker) for worker in range(4)]
        try:
            for _ in range(3):
                run(batch=50)
        finally:
            ended.set()
        last = {path: item for writer in writers for path, item in writer.result().items()}

    expected = {f"{seq}.jpg": seq for seq in range(1, 601)} | {path: item.seq for path, item in last.items()}
    deleted = {path for path, item in last.items() if isinstance(item, Tombstone)}
    existing = store.records([f"{n}.jpg" for n in range(1, 900)])
    assert behind(client, index) == [f"{index}-4"]
    assert {path: item.seq for path, item in existing.items()} == {
        path: seq for path, seq in expected.items() if path not in deleted
    }
    late = store.put([record(path, 999) for path in sorted(deleted)])
    assert {written.verdict for written in late} == {Verdict.SUPERSEDED}
    assert all("blocked" in reason for reason in reasons)


@pytest.mark.parametrize("at", ["copied", "blocks writes"])
def test_killed_run_is_resumed(
    store: ElasticStore, client: Elasticsearch, index: str, run: Run, url: str, at: str
) -> None:
    store.put([record(f"{seq}.jpg", seq) for seq in range(1, 1_001)])
    command = [sys.executable, "-c", RUN, url, index]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdin is not None
        assert killed.stdout is not None
        while not killed.stdout.readline().startswith(at):
            killed.stdin.write("continue\n")
            killed.stdin.flush()
        killed.kill()
    changes = [record("1.jpg", 2_000), deletion("2.jpg", 2_001), record("new.jpg", 2_002)]
    verdicts = {written.verdict for written in store.put(changes)}

    copied = run()

    assert verdicts == {Verdict.STORED if at == "copied" else Verdict.RETRY}
    assert copied <= 1_000 - 200 + len(changes)
    assert {written.verdict for written in store.put(changes)} == {Verdict.STORED}
    assert indices(client, index) == behind(client, index) == [f"{index}-2"]
    store.refresh()
    assert store.count() == 1_000
    assert list(store.records(["1.jpg", "2.jpg", "new.jpg"])) == ["1.jpg", "new.jpg"]


@pytest.mark.parametrize("at", ["copied", "blocks writes"])
def test_earlier_run_yields_to_a_later_one(
    store: ElasticStore, client: Elasticsearch, index: str, run: Run, at: str
) -> None:
    store.put([record(f"{seq}.jpg", seq) for seq in range(1, 301)])
    later: list[int] = []

    def start_another(line: str) -> None:
        if line.startswith(at) and not later:
            later.append(run())
            store.put([record("new.jpg", 1_000)])

    with pytest.raises(StoreError):
        run(report=start_another)

    assert behind(client, index) == indices(client, index) == [f"{index}-2"]
    assert store.health() == Health(reads=True, writes=True)
    store.refresh()
    assert store.count() == 301


def test_failed_run_releases_blocked_writes(store: ElasticStore, client: Elasticsearch, index: str, run: Run) -> None:
    store.put([record("cat.jpg", 1)])

    with pytest.raises(InterruptedError):
        run(report=raising("blocks writes"))

    assert [written.verdict for written in store.put([record("dog.jpg", 2)])] == [Verdict.STORED]
    assert behind(client, index) == [f"{index}-1"]
    run()
    assert store.filepaths(offset=0, limit=9).filepaths == ["cat.jpg", "dog.jpg"]


def test_run_after_the_swap_only_drops_the_old_index(
    store: ElasticStore, client: Elasticsearch, index: str, run: Run
) -> None:
    store.put([record("cat.jpg", 1)])
    with pytest.raises(InterruptedError):
        run(report=raising(f"{index} is"))
    assert behind(client, index) == [f"{index}-2"]

    copied = run()

    assert copied == 0
    assert indices(client, index) == [f"{index}-2"]
    assert store.count() == 1


def test_incomplete_copy_is_not_swapped_in(store: ElasticStore, client: Elasticsearch, index: str, run: Run) -> None:
    store.put([record(f"{seq}.jpg", seq) for seq in range(1, 31)])

    def lose_one(line: str) -> None:
        if line.startswith("blocks writes"):
            lost = {"_id": identity("7.jpg"), "version": 8, "version_type": "external"}
            client.bulk(index=f"{index}-2", operations=[{"delete": lost}])

    with pytest.raises(StoreError, match=r"30 images, .* 29: nothing was swapped"):
        run(report=lose_one)

    assert behind(client, index) == [f"{index}-1"]
    assert [written.verdict for written in store.put([record("new.jpg", 40)])] == [Verdict.STORED]


def test_copy_in_another_shape_starts_again(
    product: Product, store: ElasticStore, client: Elasticsearch, index: str, run: Run
) -> None:
    store.put([record("cat.jpg", 1)])
    with pytest.raises(InterruptedError):
        run(report=raising("copied"))

    run(shape=Shape(vectors="flat"))

    [mapping] = client.indices.get_mapping(index=index).body.values()
    assert product.dialect.vectors(mapping["mappings"]["properties"]["bits_0"]) == "flat"
    assert indices(client, index) == behind(client, index)


def test_index_of_an_older_version_is_converted(
    url: str, client: Elasticsearch, index: str, product: Product, store: ElasticStore, run: Run
) -> None:
    store.put([record("cat.jpg", 1, metadata={"colour": "red"})])
    older = Shape().mappings(product.dialect)
    older["properties"] = {**older["properties"], "metadata": {"type": product.flattened}}
    del older["properties"]["labels"]
    client.indices.delete(index=f"{index}-1")
    client.indices.create(
        index=f"{index}-7", aliases={index: {}}, mappings=older, settings=product.dialect.settings("hnsw")
    )
    document = {"path": "cat.jpg", "seq": 1, "deleted": False, "added": 1, "width": 1, "height": 1}
    document |= {"sig": base64.b64encode(np.ones(LENGTH, np.int8).tobytes()).decode(), "metadata": {"colour": "red"}}
    client.index(index=index, id="x", document=document)
    with closing(ElasticStore(url, index=index, timeout_s=20)) as newer:
        assert "make reindex" in newer.health().detail

        run()

        assert newer.health() == Health(reads=True, writes=True)
        assert newer.filepaths(offset=0, limit=9, selection=Selection(where={"colour": "red"})).filepaths == ["cat.jpg"]
    assert behind(client, index) == [f"{index}-8"]


@pytest.mark.parametrize("alias", ["next", "old"])
def test_foreign_index_is_not_dropped(
    product: Product, store: ElasticStore, client: Elasticsearch, index: str, run: Run, alias: str
) -> None:
    store.put([record("cat.jpg", 1)])
    client.indices.create(
        index=f"{index}-foreign",
        aliases={f"{index}-{alias}": {}},
        mappings=Shape().mappings(product.dialect),
        settings=product.dialect.settings("hnsw"),
    )

    with pytest.raises(StoreError, match="is not an alias of Match"):
        run()

    assert indices(client, index) == [f"{index}-1", f"{index}-foreign"]


def test_reindex_without_an_index_is_an_error(run: Run) -> None:
    with pytest.raises(StoreError, match="there is no index"):
        run()


def reindex(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "common.store.reindex"]
    mute = {name: value for name, value in os.environ.items() if not name.startswith(("MATCH_", "ELASTICSEARCH_"))}
    return subprocess.run(command, env=mute | environment, capture_output=True, text=True, timeout=60, check=False)


def test_command_creates_the_index_by_the_settings(
    store: ElasticStore, client: Elasticsearch, index: str, url: str
) -> None:
    store.put([record("cat.jpg", 1)])

    done = reindex(ELASTICSEARCH_URL=url, ELASTICSEARCH_INDEX=index, MATCH_ELASTICSEARCH_SHARDS="3")

    assert done.returncode == 0, done.stderr
    settings = client.indices.get_settings(index=index, flat_settings=True)[f"{index}-2"]["settings"]
    assert settings["index.number_of_shards"] == "3"
    assert f"{index} is {index}-2 now" in done.stderr


def test_command_reports_an_error_in_one_line() -> None:
    unreachable = reindex(ELASTICSEARCH_URL="http://127.0.0.1:9")
    wrong = reindex(MATCH_INDEX_VECTORS="tree")
    embedded = reindex(MATCH_STORE_URL="sqlite:///match.db")

    assert (unreachable.returncode, wrong.returncode, embedded.returncode) == (1, 2, 2)
    assert unreachable.stderr.startswith("match reindex: the index server cannot be reached")
    assert wrong.stderr == "match reindex: MATCH_INDEX_VECTORS must be hnsw or flat\n"
    assert embedded.stderr == "match reindex: the embedded store needs no reindex\n"
    assert "Traceback" not in unreachable.stderr + wrong.stderr + embedded.stderr
