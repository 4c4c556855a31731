"""Collections: each request sees and changes its own, and an API key only those that it may use."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.access.keys import Keyring, Scope
from api.collection_errors import TooManyCollections
from api.metrics import MAX_COLLECTIONS
from api.new_key import table
from api.use_cases import manage_collections
from common.config import Settings
from common.queue.items import AddItem
from common.queue.keys import OPEN_BY_COLLECTION
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from support.images import upload
from support.records import record, signature
from support.tasks import enqueue, fail, ledger_in, succeed
from support.waiting import WITHIN_S

URL = "http://example.org/cat.jpg"
NDJSON = {"Content-Type": "application/x-ndjson"}
UNKNOWN = (404, "unknown_collection")


@pytest.fixture
def ledger(real_redis: Redis) -> Ledger:
    return ledger_in(real_redis)


@pytest.fixture
def limited(make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path) -> FlaskClient:
    """The API with the keys `a` for the collection a, `shops` for shop-* and `all`."""
    file = tmp_path / "keys.toml"
    tables = [
        table("a", [*Scope], "key a", ["a"]),
        table("shops", [*Scope], "key shops", ["shop-*"]),
        table("all", [*Scope], "key all"),
    ]
    file.write_text("".join(tables))
    return make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))


def by(key: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key {key}", **more}


def add(client: FlaskClient, filepath: str, collection: str | None = None, **options: Any) -> Any:
    named = {} if collection is None else {"collection": collection}
    return client.post("/add", data={"url": URL, "filepath": filepath, **named}, **options)


def outcome(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json["code"]


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "_a", "a" * 64, "ä", "a.b", "a/b", "*"])
def test_invalid_names_are_rejected_with_their_field(client: FlaskClient, name: str) -> None:
    answers = [
        client.get("/count", query_string={"collection": name}),
        add(client, "a", name),
        client.delete("/delete", data={"filepath": "a", "collection": name}),
    ]

    assert [(outcome(answer), answer.json["field"]) for answer in answers] == [
        ((400, "wrong_parameter"), "collection")
    ] * 3


def test_first_add_creates_the_collection(client: FlaskClient) -> None:
    before = client.get("/count?collection=shop-1")

    added = add(client, "a", "shop-1")

    assert outcome(before) == UNKNOWN
    assert added.json["task"]["collection"] == "shop-1"
    assert client.get("/count?collection=shop-1").json["result"] == [0]
    assert client.get("/collections/shop-1").json["result"] == [{"name": "shop-1", "images": 0, "max_images": None}]


def test_requests_read_their_own_collection(client: FlaskClient, memory_store: Any) -> None:
    for seq, name in enumerate(("default", "shop-1", "shop-1"), 1):
        memory_store.put([record("same" if seq < 3 else "other", seq, signature(7), collection=name)])

    listed = {name: client.get(f"/list?collection={name}").json["result"] for name in ("default", "shop-1")}
    counts = {name: client.get(f"/count?collection={name}").json["result"] for name in ("default", "shop-1")}
    query = {"filepath": "same", "collection": "shop-1", "all_orientations": "false"}
    matches = client.post("/search", data=query).json["result"]
    image = client.get("/images?filepath=same&collection=shop-1").json["result"]
    client.delete("/delete", data={"filepath": "same", "collection": "shop-1"})

    assert listed == {"default": ["same"], "shop-1": ["same", "other"]}
    assert counts == {"default": [1], "shop-1": [2]}
    assert sorted(match["filepath"] for match in matches) == ["other", "same"]
    assert [one["collection"] for one in image] == ["shop-1"]
    assert client.get("/count").json["result"] == [1]
    assert client.get("/list?collection=shop-1").json["result"] == ["other"]


def test_stored_images_are_compared_within_a_collection(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([record("a", 1, signature(1)), record("b", 2, signature(1), collection="shop-1")])

    answer = client.post("/compare", data={"filepath1": "a", "filepath2": "a", "collection": "shop-1"})

    assert outcome(answer) == (404, "unknown_filepath")


def test_lines_have_collections_of_their_own(limited: FlaskClient) -> None:
    lines = [{"url": URL, "filepath": "1"}, *({"url": URL, "filepath": "2", "collection": c} for c in ("b", "shop-2"))]
    body = "\n".join(json.dumps(line) for line in [*lines, {"url": URL, "filepath": "3", "collection": "No"}])

    answer = limited.post("/add/batch?collection=shop-1", data=body, headers=by("shops", **NDJSON))

    outcomes = [json.loads(line) for line in answer.data.splitlines()]
    assert [one.get("task", {}).get("collection") for one in outcomes] == ["shop-1", None, "shop-2", None]
    assert [(one.get("code"), one.get("field")) for one in outcomes[1::2]] == [
        ("unknown_collection", "collection"),
        ("wrong_parameter", "collection"),
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/count?collection={}"),
        ("GET", "/list?collection={}"),
        ("GET", "/images?filepath=x&collection={}"),
        ("POST", "/search?filepath=x&collection={}"),
        ("POST", "/compare?filepath1=x&filepath2=x&collection={}"),
        ("DELETE", "/delete?filepath=x&collection={}"),
        ("GET", "/collections/{}"),
        ("DELETE", "/collections/{}"),
    ],
)
def test_forbidden_and_absent_collections_have_equal_replies(
    limited: FlaskClient, memory_store: Any, method: str, path: str
) -> None:
    memory_store.put([record("x", 1, collection="secret")])

    forbidden = limited.open(path.format("secret"), method=method, headers=by("a"))
    absent = limited.open(path.format("absent"), method=method, headers=by("a"))
    absent_for_all = limited.open(path.format("absent"), method=method, headers=by("all"))

    assert outcome(forbidden) == UNKNOWN
    assert forbidden.json == absent.json == absent_for_all.json


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/add?filepath=x&url=http://example.org&collection=b"),
        ("POST", "/add?filepaths[0]=x&urls[0]=http://example.org&collection=b"),
        ("POST", "/add/batch?collection=b"),
        ("PUT", "/collections/b"),
        ("GET", "/tasks?state=failed&collection=b"),
        ("POST", "/tasks/retry?state=failed&collection=b"),
        ("GET", "/count"),
    ],
)
def test_key_cannot_use_other_collections(
    limited: FlaskClient, memory_store: Any, real_redis: Redis, method: str, path: str
) -> None:
    content_type = {"content_type": NDJSON["Content-Type"]} if "batch" in path else {}

    answer = limited.open(path, method=method, headers=by("a"), **content_type)

    assert outcome(answer) == UNKNOWN
    assert memory_store.collection("b") is None
    assert real_redis.hgetall(OPEN_BY_COLLECTION) == {}


def test_key_lists_only_its_collections(limited: FlaskClient, memory_store: Any) -> None:
    for name in ("a", "shop-1", "shop-2", "b"):
        memory_store.create_collection(name)

    names = {
        key: [one["name"] for one in limited.get("/collections", headers=by(key)).json["result"]]
        for key in ("a", "shops", "all")
    }

    assert names == {"a": ["a"], "shops": ["shop-1", "shop-2"], "all": ["a", "b", "default", "shop-1", "shop-2"]}


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("DELETE", ""), ("POST", "/retry")])
def test_tasks_of_other_collections_are_unknown(limited: FlaskClient, ledger: Ledger, method: str, suffix: str) -> None:
    task_id = add(limited, "x", "shop-1", headers=by("shops")).json["task"]["id"]
    if suffix:
        fail(ledger, task_id)
    before = ledger.task(task_id)

    hidden = limited.open(f"/tasks/{task_id}{suffix}", method=method, headers=by("a"))
    absent = limited.open(f"/tasks/{'0' * 32}{suffix}", method=method, headers=by("a"))

    assert outcome(hidden) == (404, "unknown_task")
    assert hidden.json == absent.json
    assert ledger.task(task_id) == before
    assert limited.open(f"/tasks/{task_id}{suffix}", method=method, headers=by("all")).status_code < 300


def test_lists_and_retries_of_tasks_stay_in_a_collection(limited: FlaskClient, ledger: Ledger) -> None:
    ids = {name: add(limited, "x", name, headers=by("all")).json["task"]["id"] for name in ("a", "shop-1", "default")}
    fail(ledger, *ids.values())

    def failed(key: str, **query: str) -> list[str]:
        answer = limited.get("/tasks", query_string={"state": "failed", **query}, headers=by(key))
        return [task["id"] for task in answer.json["result"]]

    listed = failed("shops", collection="shop-1"), failed("all", collection="a"), failed("all")
    retried = limited.post("/tasks/retry", data={"state": "failed", "collection": "a"}, headers=by("a"))

    assert listed == ([ids["shop-1"]], [ids["a"]], [ids["default"]])
    assert retried.json["result"] == [{"retried": 1, "left": {}}]
    assert failed("shops", collection="shop-1") == [ids["shop-1"]]


def test_cursors_contain_no_task_of_another_collection(limited: FlaskClient, ledger: Ledger) -> None:
    ids = [add(limited, f"{n}", name, headers=by("all")).json["task"]["id"] for n, name in enumerate("aabb")]
    fail(ledger, *ids)
    listed: list[str] = []
    cursor = ""

    while cursor is not None:
        query = {"state": "failed", "collection": "a", "limit": "1", "cursor": cursor}
        page = limited.get("/tasks", query_string=query, headers=by("a")).json
        listed += [task["id"] for task in page["result"]]
        cursor = page["cursor"]

    assert sorted(listed) == sorted(ids[:2])


def test_idempotency_key_belongs_to_a_collection(client: FlaskClient) -> None:
    key = {"Idempotency-Key": "one"}

    first = add(client, "x", "a", headers=key)
    again = add(client, "x", "a", headers=key)
    other = add(client, "x", "b", headers=key)

    assert first.json["task"]["id"] == again.json["task"]["id"]
    assert outcome(other) == (409, "idempotency_conflict")


def test_quota_limits_stored_and_accepted_images(client: FlaskClient, memory_store: Any) -> None:
    put = client.put("/collections/shop-1", data={"max_images": 2})
    memory_store.put([record("stored", 1, collection="shop-1")])

    answers = [add(client, name, "shop-1") for name in ("new", "one more")]
    replacing = add(client, "stored", "shop-1")
    elsewhere = add(client, "one more")

    assert (put.status_code, put.json["result"]) == (201, [{"name": "shop-1", "images": 0, "max_images": 2}])
    assert answers[0].status_code == replacing.status_code == elsewhere.status_code == 202
    assert (outcome(answers[1]), answers[1].json["field"]) == ((403, "quota_exceeded"), "collection")


def test_upload_beyond_the_quota_is_not_kept(client: FlaskClient, real_redis: Redis) -> None:
    client.put("/collections/shop-1", data={"max_images": 0})

    answer = client.post("/add", data={"image": upload(), "filepath": "a", "collection": "shop-1"})

    assert outcome(answer) == (403, "quota_exceeded")
    assert list(real_redis.scan_iter("match:upload:*")) == []


def test_lines_beyond_the_quota_fail_alone(client: FlaskClient, ledger: Ledger) -> None:
    client.put("/collections/shop-1", data={"max_images": 2})
    body = "\n".join(json.dumps({"url": URL, "filepath": f"{n}"}) for n in range(4))

    answer = client.post("/add/batch?collection=shop-1", data=body, headers=NDJSON)

    outcomes = [json.loads(line) for line in answer.data.splitlines()]
    assert [one.get("code") for one in outcomes] == [None, None, "quota_exceeded", "quota_exceeded"]
    fail(ledger, *(one["task"]["id"] for one in outcomes[:2]))
    assert add(client, "again", "shop-1").status_code == 202


def test_retries_stay_within_the_quota(client: FlaskClient, memory_store: Any, ledger: Ledger) -> None:
    client.put("/collections/shop-1", data={"max_images": 2})
    memory_store.put([record("stored", 1, collection="shop-1")])
    ids = []
    for name in ("one", "two", "stored"):
        ids.append(add(client, name, "shop-1").json["task"]["id"])
        fail(ledger, ids[-1])

    answers = [client.post(f"/tasks/{task_id}/retry") for task_id in ids]
    others = client.post("/tasks/retry", data={"state": "failed", "collection": "shop-1"})

    assert [answer.status_code for answer in answers] == [202, 403, 202]
    assert (answers[1].json["code"], answers[1].json["task"]["state"]) == ("quota_exceeded", "failed")
    assert others.json["result"] == [{"retried": 0, "left": {"quota_exceeded": 1}}]


def test_quota_is_changed_and_removed(client: FlaskClient) -> None:
    answers = [client.put("/collections/a", data=data) for data in ({"max_images": 1}, {"max_images": 5}, {})]

    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert [answer.json["result"][0]["max_images"] for answer in answers] == [1, 5, None]


def test_number_of_collections_is_limited(make_client: Callable[..., FlaskClient], real_redis: Redis) -> None:
    client = make_client(real_redis, settings=Settings(max_collections=2))

    answers = [add(client, "x", "a"), add(client, "x", "b"), client.put("/collections/b"), add(client, "y", "a")]

    assert [answer.status_code for answer in answers] == [202, 403, 403, 202]
    assert [(answer.json["code"], answer.json["field"]) for answer in answers[1:3]] == [
        ("too_many_collections", "collection"),
        ("too_many_collections", "name"),
    ]


def test_adds_are_accepted_while_the_store_is_away(client: FlaskClient, memory_store: Any) -> None:
    memory_store.away = True

    answers = [add(client, "x"), add(client, "x", "new")]

    assert [answer.status_code for answer in answers] == [202, 202]


def test_adds_do_not_wait_for_a_silent_store(
    client: FlaskClient, memory_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_again = Event()
    monkeypatch.setattr(memory_store, "collection", lambda _: answers_again.wait(WITHIN_S) and None)
    monkeypatch.setattr(manage_collections, "LOOK_UP_WITHIN_S", 0.01)

    answers = [add(client, "x"), add(client, "x", "new")]
    was_silent = not answers_again.is_set()
    answers_again.set()

    assert [answer.status_code for answer in answers] == [202, 202]
    assert was_silent


def test_names_of_rejected_collections_take_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, memory_store: Any, ledger: Ledger
) -> None:
    monkeypatch.setattr(manage_collections, "MAX_REMEMBERED", 3)
    publisher = Publisher("redis://127.0.0.1:1/0")
    collections = manage_collections.ManageCollections(memory_store, ledger, publisher, max_collections=1)

    for number in range(10):
        with pytest.raises(TooManyCollections):
            collections.prepare_add(f"{number}")

    publisher.close()
    assert len(collections._probes) <= 3


def test_deletion_is_a_task_of_its_collection(limited: FlaskClient, memory_store: Any, ledger: Ledger) -> None:
    memory_store.create_collection("shop-1")

    answer = limited.delete("/collections/shop-1", headers=by("shops"))

    task = answer.json["task"]
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/tasks/{task['id']}"
    assert (task["action"], task["collection"], task["filepath"]) == ("delete_collection", "shop-1", None)
    claim = ledger.begin(task["id"])
    assert claim is not None
    assert (claim.action, claim.collection) == ("delete_collection", "shop-1")
    succeed(ledger, task["id"])
    assert limited.get(f"/tasks/{task['id']}", headers=by("shops")).json["result"][0]["state"] == "succeeded"


def test_deleted_collection_is_unknown_after_a_while(
    client: FlaskClient, memory_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(manage_collections, "monotonic", lambda: now)
    memory_store.create_collection("a")
    before = client.get("/count?collection=a")

    memory_store.delete_collection("a")
    now += manage_collections.REMEMBERED_S

    assert before.json["result"] == [0]
    assert outcome(client.get("/count?collection=a")) == UNKNOWN


def test_page_without_a_key_reveals_no_collection(limited: FlaskClient, memory_store: Any) -> None:
    memory_store.create_collection("secret")

    existing, absent = (limited.get(f"/web/collection?collection={name}") for name in ("secret", "absent"))

    assert existing.status_code == absent.status_code == 200
    assert existing.data == absent.data


def test_page_of_a_forbidden_collection_is_not_shown(limited: FlaskClient, memory_store: Any) -> None:
    memory_store.put([record("x", 1, collection="secret")])

    answers = [
        limited.get(f"/web/{page}&collection=secret", headers=by("a")) for page in ("collection?", "image?filepath=x")
    ]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert not any(">x<" in answer.text for answer in answers)


def test_metrics_name_few_collections(client: FlaskClient, ledger: Ledger) -> None:
    for number in range(MAX_COLLECTIONS + 5):
        items = [AddItem(filepath=f"{n}", url=URL) for n in range(2 if number < 2 else 1)]
        enqueue(ledger, items, collection=f"c-{number:02}")

    lines = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith("match_collection_tasks_open")
    ]

    assert len(lines) == MAX_COLLECTIONS + 1
    assert 'match_collection_tasks_open{collection="c-01"} 2.0' in lines
    assert 'match_collection_tasks_open{collection="_other"} 5.0' in lines


@pytest.mark.parametrize("path", ["/metrics", "/queue"])
def test_limited_keys_read_no_totals_of_all_collections(limited: FlaskClient, path: str) -> None:
    answers = {key: limited.get(path, headers=by(key)) for key in ("a", "shops", "all")}

    assert {key: answer.status_code for key, answer in answers.items()} == {"a": 403, "shops": 403, "all": 200}
    assert answers["a"].json["code"] == "missing_scope"


def test_queue_page_of_a_limited_key_has_no_totals(limited: FlaskClient) -> None:
    pages = {key: limited.get("/web/queue?collection=a", headers=by(key)).text for key in ("a", "all")}

    assert {key: ">Waiting<" in page for key, page in pages.items()} == {"a": False, "all": True}
    assert "Failed tasks" in pages["a"]


def test_status_page_counts_only_allowed_collections(limited: FlaskClient, memory_store: Any) -> None:
    memory_store.put(
        [record(f"{n}", n, collection=name) for n, name in enumerate(["a", "default", "shop-1", "shop-2"], 1)]
    )

    pages = {key: limited.get("/web/status", headers=by(key)).text for key in ("a", "shops", "all")}

    assert {key: re.findall(r"stored</dt><dd>(.*?)</dd>", page) for key, page in pages.items()} == {
        "a": ["1"],
        "shops": ["2"],
        "all": ["4"],
    }
