"""The backups of docs/backup.md: each is taken while the service works and restores the data."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any, NoReturn, Self

import pytest
from redis import Redis

from common.queue.items import AddItem
from common.queue.jobs import SINGLE_QUEUE
from common.queue.ledger import Ledger
from common.queue.stats import read_stats
from common.queue.task_pages import TaskPages
from common.queue.tasks import State, TaskResult
from common.store.base import Record
from common.store.elastic import ElasticStore
from common.store.elastic.connection import Connection
from common.store.elastic.copying import Copying
from common.store.elastic.mapping import Shape
from common.store.elastic.thumbnails import ElasticThumbnails
from common.store.sqlite import SqliteStore
from common.store.thumbnails import Owner, Thumbnail
from dev.elasticsearch_node import SINGLE_NODE, Node, why_not
from dev.redis_server import RedisServer, find_program
from support import records
from support.tasks import enqueue
from support.waiting import wait_until

WITHIN_S = 60.0
# The records that exist before a copy is taken.
EXISTING = 200
BATCH = 20


def record(number: int) -> Record:
    return records.record(f"{number:06}", number + 1, records.signature(number), metadata={"number": number})


# --- the embedded store ------------------------------------------------------


class Writing:
    """A thread that adds images until the `with` ends; `done` is the number of acknowledged ones."""

    def __init__(self, store: SqliteStore) -> None:
        self.done = 0
        self._store = store
        self._stop = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.done >= EXISTING, "images are written")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self._store.put([record(number) for number in range(self.done, self.done + BATCH)])
            self.done += BATCH


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "match.db")
    store.prepare()
    yield store
    store.close()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command on PATH")
@pytest.mark.parametrize("command", [".backup '{copy}'", "VACUUM INTO '{copy}'"])
def test_sqlite_copy_during_writes_has_all_acknowledged_records(
    command: str, sqlite_store: SqliteStore, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    with Writing(sqlite_store) as writing:
        acknowledged = writing.done
        call = ["sqlite3", "-cmd", ".timeout 30000", str(tmp_path / "match.db"), command.format(copy=copy)]
        subprocess.run(call, check=True, timeout=WITHIN_S)
        at_most = writing.done + BATCH

    restored = SqliteStore(copy)
    restored.prepare()

    assert acknowledged <= restored.count() <= at_most
    [[match]] = restored.candidates(records.signature(7)[None], limit=1)
    assert match.filepath == "000007"
    assert restored.records(["000007"])["000007"].metadata == {"number": 7}
    restored.close()


# --- Redis -------------------------------------------------------------------


def ledger_of(server: RedisServer) -> Ledger:
    return Ledger(Redis.from_url(server.url), max_open=1000, finished_keep_s=3600, failed_keep_s=3600)


def accept_some(ledger: Ledger) -> tuple[list[str], str]:
    """Return the ids of open tasks and the id of a failed one."""
    jobs = [AddItem(filepath=f"{number}.jpg", url=f"https://example.com/{number}.jpg") for number in range(30)]
    tasks = enqueue(ledger, jobs, queue=SINGLE_QUEUE)
    failed = tasks.pop().id
    ledger.finish([TaskResult(task_id=failed, state=State.FAILED, code="timeout", error="too slow")])
    return [task.id for task in tasks], failed


def redis_cli(server: RedisServer, *words: str) -> str:
    program = find_program().replace("-server", "-cli")
    if not Path(program).is_file():
        pytest.skip("no redis-cli beside this Redis")
    call = [program, "-u", server.url, *words]
    return subprocess.run(call, check=True, capture_output=True, text=True, timeout=WITHIN_S).stdout


def test_redis_restored_from_a_remote_dump_has_all_tasks(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "before") as server:
        waiting, failed = accept_some(ledger_of(server))
        redis_cli(server, "--rdb", str(tmp_path / "redis.rdb"))
    (tmp_path / "after").mkdir()
    shutil.copy(tmp_path / "redis.rdb", tmp_path / "after" / "dump.rdb")

    # Redis writes its append-only files from the dump; later starts read only those files.
    with RedisServer(tmp_path / "after", appendonly="no") as once:
        redis_cli(once, "config", "set", "appendonly", "yes")
        wait_until(
            lambda: (
                "aof_rewrite_in_progress:0" in (status := redis_cli(once, "info", "persistence"))
                and "aof_rewrite_scheduled:0" in status
                and "aof_enabled:1" in status
            ),
            "the append-only files are written",
        )
    with RedisServer(tmp_path / "after") as restored:
        redis = Redis.from_url(restored.url)
        pages = TaskPages(redis)

        assert read_stats(redis).open == len(waiting)
        assert {task.id for task in pages.page(State.PENDING, limit=100).tasks} == set(waiting)
        assert [(task.id, task.code) for task in pages.page(State.FAILED, limit=9).tasks] == [(failed, "timeout")]


def test_redis_with_append_only_files_ignores_a_dump(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "before") as server:
        accept_some(ledger_of(server))
        redis_cli(server, "--rdb", str(tmp_path / "redis.rdb"))
    (tmp_path / "after").mkdir()
    shutil.copy(tmp_path / "redis.rdb", tmp_path / "after" / "dump.rdb")

    with RedisServer(tmp_path / "after") as restored:
        assert read_stats(Redis.from_url(restored.url)).open == 0


def test_redis_restored_from_append_only_files_has_open_tasks(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "before") as server:
        redis_cli(server, "config", "set", "auto-aof-rewrite-percentage", "0")
        waiting, _ = accept_some(ledger_of(server))
        redis_cli(server, "waitaof", "1", "0", "30000")
        shutil.copytree(tmp_path / "before" / "appendonlydir", tmp_path / "after" / "appendonlydir")
        server.kill()

    with RedisServer(tmp_path / "after") as restored:
        assert read_stats(Redis.from_url(restored.url)).open == len(waiting)


# --- Elasticsearch -----------------------------------------------------------


def request(url: str, method: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - always http to loopback
        url, method=method, data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:  # noqa: S310 - the same
        return json.loads(answer.read())


@pytest.fixture
def node(give_up: Callable[[str], NoReturn], tmp_path: Path) -> Iterator[Node]:
    """A node with a folder for snapshots. ELASTICSEARCH_URL may name a node without one."""
    if reason := why_not():
        give_up(reason)
    with Node(membership={**SINGLE_NODE, "path.repo": str(tmp_path)}) as node:
        yield node


@pytest.mark.timeout(300)
def test_snapshot_is_restored_after_a_reindex(node: Node, tmp_path: Path) -> None:
    snapshots = f"{node.url}/_snapshot/match"
    request(snapshots, "PUT", {"type": "fs", "settings": {"location": str(tmp_path / "snapshots")}})
    store = ElasticStore(node.url, index="images", timeout_s=WITHIN_S)
    store.prepare()
    store.put([record(number) for number in range(EXISTING)])
    connection = Connection(node.url, index="images", timeout_s=WITHIN_S)
    thumbnails = ElasticThumbnails(connection, index="images", shape=Shape())
    thumbnails.put([Thumbnail(Owner(seq=1, collection="default", filepath="000000"), b"webp")])
    indices = {"indices": "images-*", "include_global_state": False}
    status = request(f"{snapshots}/monday?wait_for_completion=true", "PUT", indices)
    assert (status["snapshot"]["state"], status["snapshot"]["shards"]["failed"]) == ("SUCCESS", 0)
    Copying(connection.cluster(), "images", shape=Shape(), grace_s=0).run()
    existing = ",".join(request(f"{node.url}/images-*", "GET"))
    request(f"{node.url}/{existing}", "DELETE")

    request(f"{snapshots}/monday/_restore?wait_for_completion=true", "POST", {**indices, "include_aliases": True})

    assert existing == "images-2,images-thumbnails-1"
    store.prepare()
    assert store.count() == EXISTING
    assert thumbnails.get(1) == b"webp"
    [[match]] = store.candidates(records.signature(7)[None], limit=1)
    assert match.filepath == "000007"
    store.put([record(EXISTING)])
    assert store.records([f"{EXISTING:06}"])
    store.close()
    connection.close()
