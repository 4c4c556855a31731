"""The use of the service by API key and collection, counted in a real Redis."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.access.keys import Keyring, Scope
from api.new_key import table
from api.usage import SEND_AFTER_S, UsageRecorder
from common.config import Settings
from common.errors import QueueUnavailable
from common.queue import usage
from common.queue.keys import USAGE, USAGE_WRITER
from common.queue.usage import KEEP_S, Counted, Label, UsageCounts
from support.records import record
from support.stores import MemoryStore
from support.waiting import wait_until

NDJSON = {"Content-Type": "application/x-ndjson"}
ALL = [*Scope]


@pytest.fixture
def keyed(make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path) -> Callable[[], FlaskClient]:
    """Return a function that makes the API of another process, with the keys `shop` and `all`."""
    file = tmp_path / "keys.toml"
    file.write_text(table("shop", ALL, "key shop", ["shop"]) + table("all", ALL, "key all"))
    return lambda: make_client(
        real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file, max_image_bytes=100_000), max_open=100
    )


def send(client: FlaskClient, key: str, method: str, path: str, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer key {key}", **options.pop("headers", {})}
    with client.open(path, method=method, headers=headers, **options) as answer:
        return answer.status_code, answer.get_data()


def rows(client: FlaskClient, key: str = "all", **query: Any) -> dict[tuple[str | None, str | None], dict[str, int]]:
    status, body = send(client, key, "GET", "/usage", query_string=query)
    assert status == 200, body
    return {(row.pop("key"), row.pop("collection")): row for row in json.loads(body)["result"]}


def test_use_is_counted_by_key_and_collection(keyed: Callable[[], FlaskClient], memory_store: MemoryStore) -> None:
    memory_store.put([record("a", 1, collection="shop"), record("a", 2, collection="other")])
    client = keyed()
    url = {"url": "http://example.org/a.jpg"}
    lines = [{**url, "filepath": "b"}, {**url, "filepath": "c", "collection": "other"}, {"filepath": "no URL"}]
    searches = [{"filepath": "a", "mode": "fast"}, {"filepath": "unknown"}, {"filepath": "a", "collection": "other"}]

    send(client, "shop", "POST", "/add", data={**url, "filepath": "x", "collection": "shop"})
    send(client, "all", "POST", "/add/batch?collection=shop", data=text(lines), headers=NDJSON)
    send(client, "all", "POST", "/search", data={"filepath": "a", "collection": "shop"})
    send(client, "all", "POST", "/search/batch?collection=shop", data=text(searches), headers=NDJSON)
    send(client, "all", "GET", "/collections")
    send(client, "shop", "GET", "/count?collection=other")
    client.get("/ping").close()

    counts = rows(client)
    sizes = {label: row.pop("bytes") for label, row in counts.items()}
    assert counts == {
        ("shop", "shop"): {"requests": 1, "adds": 1, "searches": 0},
        ("shop", None): {"requests": 1, "adds": 0, "searches": 0},
        ("all", "shop"): {"requests": 3, "adds": 1, "searches": 2},
        ("all", "other"): {"requests": 0, "adds": 1, "searches": 1},
        ("all", None): {"requests": 1, "adds": 0, "searches": 0},
    }
    assert sizes["all", "other"] == 0
    assert sizes["all", "shop"] > len(text(lines)) + len(text(searches))


def text(values: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def test_names_without_a_collection_are_not_counted(
    keyed: Callable[[], FlaskClient], memory_store: MemoryStore
) -> None:
    memory_store.put([record("a", 1, collection="shop")])
    client = keyed()
    line = text([{"filepath": "a"}])

    for name in ("x1", "x2"):
        send(client, "all", "GET", f"/batches?collection={name}")
        send(client, "all", "GET", f"/tasks?state=failed&collection={name}")
        send(client, "all", "POST", f"/search/batch?collection={name}", data=line, headers=NDJSON)
        send(client, "all", "POST", f"/add/batch?collection={name}", data=text([{"filepath": "a"}]), headers=NDJSON)
        send(client, "all", "GET", f"/count?collection={name}")
    send(client, "all", "GET", "/count?collection=shop")

    counts = rows(client)
    assert {label: row["requests"] for label, row in counts.items()} == {("all", None): 10, ("all", "shop"): 1}


def test_repeated_adds_are_counted_once(keyed: Callable[[], FlaskClient]) -> None:
    client = keyed()
    form = {"url": "http://example.org/a.jpg", "filepath": "x", "collection": "shop"}

    answers = [send(client, "all", "POST", "/add", data=form, headers={"Idempotency-Key": "once"})[0] for _ in range(2)]

    counts = rows(client)["all", "shop"]
    assert (answers, counts["requests"], counts["adds"]) == ([202, 202], 2, 1)


def test_all_processes_share_the_counts(keyed: Callable[[], FlaskClient]) -> None:
    processes = [keyed() for _ in range(3)]

    with ThreadPoolExecutor(6) as threads:
        tasks = [threads.submit(send, client, "all", "GET", "/count") for client in processes for _ in range(20)]
        assert {task.result()[0] for task in tasks} == {200}

    reader = keyed()
    wait_until(lambda: rows(reader).get(("all", "default"), {}).get("requests", 0) == 60, within_s=60)


def test_a_limited_key_sees_only_its_collections(keyed: Callable[[], FlaskClient], memory_store: MemoryStore) -> None:
    memory_store.put([record("a", 1, collection="shop")])
    client = keyed()
    for collection in ("shop", "default"):
        send(client, "all", "GET", f"/count?collection={collection}")
    send(client, "shop", "GET", "/count?collection=shop")

    assert {*rows(client, "shop")} == {("all", "shop"), ("shop", "shop")}


def test_use_contains_no_key(keyed: Callable[[], FlaskClient], real_redis: Redis) -> None:
    client = keyed()
    send(client, "all", "GET", "/count")
    with client.get("/count", headers={"Authorization": "Bearer a secret"}):
        pass

    rows(client)
    kept = [str(real_redis.hgetall(key)) for key in real_redis.keys(f"{USAGE}*")]
    assert len(kept) == 1
    assert not any(secret in kept[0] for secret in ("key all", "a secret"))


def test_days_without_use_are_empty(keyed: Callable[[], FlaskClient], real_redis: Redis) -> None:
    client = keyed()
    seconds, _ = real_redis.time()
    real_redis.hset(f"{USAGE}{seconds // 86_400 - 6}", mapping={"all|old|requests": 7, "all|old|searches": 5})

    assert ("all", "old") not in rows(client, days=6)
    assert rows(client, days=7)["all", "old"] == {"requests": 7, "adds": 0, "searches": 5, "bytes": 0}


@pytest.mark.parametrize("days", ["0", "32", "x"])
def test_other_numbers_of_days_are_rejected(client: FlaskClient, days: str) -> None:
    assert client.get("/usage", query_string={"days": days}).json["field"] == "days"


def test_pairs_beyond_the_bound_are_counted_together(real_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_LABELS", 3)
    counts = UsageCounts(real_redis)

    for number in range(1, 10):
        uses = {(Label("k", f"c{number % 5}"), counted): 1 for counted in Counted}
        counts.add(uses, writer="w", number=number)

    totals = counts.read(days=1).counts
    assert len(totals) == 4
    assert sum(total[Counted.ADDS] for total in totals.values()) == 9
    assert totals[Label("*", "*")][Counted.ADDS] == 3


def test_a_repeated_call_counts_once(real_redis: Redis) -> None:
    counts = UsageCounts(real_redis)
    use = {(Label("k", "c"), Counted.SEARCHES): 2}

    for writer, number in (("one", 1), ("one", 1), ("other", 1), ("one", 2), ("one", 1)):
        counts.add(use, writer=writer, number=number)

    assert counts.read(days=1).counts == {Label("k", "c"): Counter({Counted.SEARCHES: 6, Counted.REQUESTS: 0})}


def test_counts_expire(real_redis: Redis) -> None:
    UsageCounts(real_redis).add({(Label("k", "c"), Counted.SEARCHES): 1}, writer="w", number=1)

    expiries = [real_redis.ttl(key) for prefix in (USAGE, USAGE_WRITER) for key in real_redis.keys(f"{prefix}*")]
    assert len(expiries) == 2
    assert all(KEEP_S - 60 < seconds <= KEEP_S for seconds in expiries)


class UnreliableCounts:
    """Counts in memory of a Redis that may be away, or lose its reply."""

    def __init__(self) -> None:
        self.is_away = False
        self.loses_replies = False
        self.calls: dict[tuple[str, int], Mapping[Any, int]] = {}

    def add(self, counts: Mapping[Any, int], *, writer: str, number: int) -> None:
        if not self.is_away:
            self.calls.setdefault((writer, number), dict(counts))
        if self.is_away or self.loses_replies:
            raise QueueUnavailable("no reply")

    def total(self) -> int:
        return sum(sum(counts.values()) for counts in self.calls.values())


class ManualTimers:
    """Timers that a test lets elapse."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == SEND_AFTER_S
        self.due.append(call)

    def elapse(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


def test_requests_within_a_short_time_share_a_call() -> None:
    counts: Any = UnreliableCounts()
    timers = ManualTimers()
    recorder = UsageRecorder(counts, after=timers)

    for _ in range(5):
        recorder.add({(Label("k", "c"), Counted.REQUESTS): 1})
    timers.elapse()

    assert [*counts.calls.values()] == [{(Label("k", "c"), Counted.REQUESTS): 5}]
    assert not timers.due


@pytest.mark.parametrize("problem", ["is_away", "loses_replies"])
def test_counts_wait_for_redis(problem: str) -> None:
    counts: Any = UnreliableCounts()
    timers = ManualTimers()
    recorder = UsageRecorder(counts, after=timers)
    use = {(Label("k", "c"), Counted.REQUESTS): 1}
    setattr(counts, problem, True)
    for _ in range(5):
        recorder.add(use)
        timers.elapse()

    setattr(counts, problem, False)
    timers.elapse()

    assert counts.total() == 5
    assert not timers.due


def test_memory_of_waiting_counts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.usage.MAX_LABELS", 10)
    counts: Any = UnreliableCounts()
    counts.is_away = True
    timers = ManualTimers()
    recorder = UsageRecorder(counts, after=timers)
    for number in range(100):
        recorder.add({(Label("k", f"c{number}"), Counted.REQUESTS): 1})
        timers.elapse()

    counts.is_away = False
    recorder.flush()

    assert counts.total() == 100
    assert max(len(call) for call in counts.calls.values()) <= 12
