"""PATCH /images, and DELETE /delete by the start of filepaths or by metadata."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.access.keys import Keyring, Scope
from api.forms.parameters import METADATA_BYTES
from api.new_key import table
from common.config import Settings
from common.queue.batches import Batches
from common.queue.expected_images import ExpectedImages
from common.queue.keys import BATCH_REQUESTS, OPEN
from common.queue.tasks import State
from support.records import deletion, record
from support.tasks import end, ledger_in

IMAGE = {"url": "http://example.org/cat.jpg", "filepath": "cat.jpg"}


def failure(answer: Any) -> tuple[int, str, str]:
    return answer.status_code, answer.json["code"], answer.json.get("field")


def metadata_of(client: FlaskClient, filepath: str = "cat.jpg") -> Any:
    return client.get("/images", query_string={"filepath": filepath}).json["result"][0]["metadata"]


@pytest.mark.parametrize("kind", ["data", "json", "query_string"])
def test_metadata_are_merged(client: FlaskClient, memory_store: Any, kind: str) -> None:
    memory_store.put([record("cat.jpg", 1, metadata={"a": 1, "b": {"c": 2, "d": 3}})])
    changes = {"a": None, "b": {"c": "x"}} if kind == "json" else '{"a": null, "b": {"c": "x"}}'

    answer = client.patch("/images", **{kind: {"filepath": "cat.jpg", "metadata": changes}})

    expected = {"b": {"c": "x", "d": 3}}
    assert (answer.status_code, answer.json["status"], answer.json["method"]) == (200, "ok", "patch_image")
    assert answer.json["result"] == [{"collection": "default", "filepath": "cat.jpg", "metadata": expected}]
    assert metadata_of(client) == expected


def test_null_removes_all_metadata(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([record("cat.jpg", 1, metadata={"a": 1})])

    answer = client.patch("/images", json={"filepath": "cat.jpg", "metadata": None})

    assert (answer.status_code, metadata_of(client)) == (200, None)


def test_only_a_key_that_reads_gets_metadata(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path, memory_store: Any
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(table("writer", [Scope.WRITE], "key writer") + table("both", [Scope.READ, Scope.WRITE], "key both"))
    client = make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))
    memory_store.put([record("cat.jpg", 1, metadata={"secret": 1})])

    written, both = (
        client.patch(
            "/images", json={"filepath": "cat.jpg", "metadata": {}}, headers={"Authorization": f"Bearer key {name}"}
        )
        for name in ("writer", "both")
    )

    assert [reply.json["result"][0]["metadata"] for reply in (written, both)] == [None, {"secret": 1}]


def test_patched_image_keeps_its_place_in_lists(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([record("cat.jpg", 1), record("dog.jpg", 2)])

    client.patch("/images", json={"filepath": "cat.jpg", "metadata": {"album": "cats"}})

    assert client.get("/list").json["result"] == ["cat.jpg", "dog.jpg"]
    assert client.get("/list", query_string={"filter[album]": "cats"}).json["result"] == ["cat.jpg"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"filepath": "cat.jpg"}, "missing_parameter", "metadata"),
        ({"metadata": {}}, "missing_parameter", "filepath"),
        ({"filepath": "cat.jpg", "metadata": []}, "wrong_parameter", "metadata"),
        ({"filepath": "cat.jpg", "metadata": "x"}, "wrong_parameter", "metadata"),
        ({"filepath": "", "metadata": {}}, "wrong_parameter", "filepath"),
        ({"filepath": "cat.jpg", "metadata": {}, "url": "http://h/"}, "unknown_parameter", "url"),
    ],
)
def test_wrong_patch_is_rejected(
    client: FlaskClient, memory_store: Any, body: dict[str, Any], code: str, field: str
) -> None:
    memory_store.put([record("cat.jpg", 1)])

    assert failure(client.patch("/images", json=body)) == (400, code, field)


def test_patch_keeps_the_limit_on_metadata(client: FlaskClient, memory_store: Any) -> None:
    half = {f"{n}": "x" * 8000 for n in range(5)}
    memory_store.put([record("cat.jpg", 1, metadata=half)])

    answer = client.patch("/images", json={"filepath": "cat.jpg", "metadata": {f"a{n}": "x" * 8000 for n in range(4)}})

    assert failure(answer) == (400, "wrong_parameter", "metadata")
    assert f"{METADATA_BYTES}" in answer.json["error"][0]
    assert metadata_of(client) == half


def test_spaces_do_not_count_for_the_limit_on_metadata(client: FlaskClient, memory_store: Any) -> None:
    # 60 KB without spaces, and 70 KB with a space after each colon and comma.
    metadata = {"numbers": [*range(10_000, 20_000)], "a": 1}
    memory_store.put([record("cat.jpg", 1, metadata=metadata)])

    patched = client.patch("/images", json={"filepath": "cat.jpg", "metadata": {"a": 2}})
    added = client.post("/add", json=IMAGE | {"metadata": metadata})

    assert (patched.status_code, added.status_code) == (200, 202)
    assert metadata_of(client) == metadata | {"a": 2}


def test_unknown_image_is_not_found(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([record("dog.jpg", 1), deletion("cat.jpg", 2)])
    client.post("/add", json=IMAGE | {"filepath": "other.jpg"})

    answer = client.patch("/images", json={"filepath": "cat.jpg", "metadata": {"a": 1}})

    assert failure(answer) == (404, "unknown_filepath", "filepath")
    memory_store.put([record("cat.jpg", 3)])
    assert metadata_of(client) is None


@pytest.mark.parametrize("state", [None, State.FAILED])
def test_patch_waits_for_an_accepted_add(
    client: FlaskClient, memory_store: Any, real_redis: Redis, state: State | None
) -> None:
    task_id = client.post("/add", json=IMAGE | {"metadata": {"a": 1}}).json["task"]["id"]
    claim = ledger_in(real_redis).begin(task_id)
    assert claim is not None
    if state is not None:
        end(real_redis, task_id, state, code="timeout", error="slow")

    answer = client.patch("/images", json={"filepath": "cat.jpg", "metadata": {"a": 2, "b": 3}})
    memory_store.put([record("cat.jpg", claim.seq, metadata={"a": 1})])

    assert (answer.status_code, answer.json["status"], answer.json["result"]) == (202, "ok", [])
    assert memory_store.metadata(["cat.jpg"]) == {"cat.jpg": {"a": 2, "b": 3}}


def test_patch_belongs_to_its_collection(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([record("cat.jpg", 1, collection="shop"), record("cat.jpg", 2)])

    inside = client.patch("/images", json={"filepath": "cat.jpg", "collection": "shop", "metadata": {"a": 1}})
    absent = client.patch("/images", json={"filepath": "cat.jpg", "collection": "nowhere", "metadata": {"a": 1}})

    assert inside.json["result"] == [{"collection": "shop", "filepath": "cat.jpg", "metadata": {"a": 1}}]
    assert failure(absent) == (404, "unknown_collection", "collection")
    assert metadata_of(client) is None


def test_unavailable_store_takes_no_patch(client: FlaskClient, memory_store: Any) -> None:
    memory_store.put([record("cat.jpg", 1)])
    memory_store.read_only = True

    answer = client.patch("/images", json={"filepath": "cat.jpg", "metadata": {"a": 1}})

    assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")


def test_images_are_expected_while_tasks_may_store_them(client: FlaskClient, real_redis: Redis) -> None:
    expected, few = ExpectedImages(real_redis), ExpectedImages(real_redis, max_scanned=0)
    nothing = expected.may_arrive("cat.jpg", collection="default"), few.may_arrive("cat.jpg", collection="default")

    task_id = client.post("/add", json=IMAGE | {"collection": "shop"}).json["task"]["id"]

    assert nothing == (False, False)
    assert expected.may_arrive("cat.jpg", collection="shop")
    assert not expected.may_arrive("cat.jpg", collection="default")
    assert not expected.may_arrive("cat", collection="shop")
    assert few.may_arrive("dog.jpg", collection="default")
    end(real_redis, task_id, State.SUCCEEDED)
    assert not expected.may_arrive("cat.jpg", collection="shop")


# Deletion of selected images


@pytest.fixture
def three(memory_store: Any) -> None:
    memory_store.put(
        [
            record("cats/1", 1, metadata={"album": "pets"}),
            record("cats/2", 2),
            record("catsandra", 3, metadata={"album": "pets"}),
        ]
    )


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("selected", "count"),
    [
        ({"filepath_prefix": "cats/"}, 2),
        ({"filter": {"album": "pets"}}, 2),
        ({"filepath_prefix": "cats/", "filter": {"album": "pets"}}, 1),
        ({"filepath_prefix": "cats/%"}, 0),
        ({"filepath_prefix": "*"}, 0),
    ],
)
def test_dry_run_only_counts(client: FlaskClient, real_redis: Redis, selected: dict[str, Any], count: int) -> None:
    answer = client.delete("/delete", json=selected | {"dry_run": True, "expect": count})
    unexpected = client.delete("/delete", json=selected | {"dry_run": True, "expect": 7})

    assert (answer.status_code, answer.json["result"], "task" in answer.json) == (200, [count], False)
    assert failure(unexpected) == (409, "unexpected_count", "expect")
    assert client.get("/count").json["result"] == [3]
    assert not real_redis.keys("match:task:*")


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("kind", ["data", "json", "query_string"])
def test_deletion_of_a_folder_is_a_batch(client: FlaskClient, real_redis: Redis, kind: str) -> None:
    expect = 2 if kind == "json" else "2"

    answer = client.delete("/delete", **{kind: {"filepath_prefix": "cats/", "expect": expect}})

    task = answer.json["task"]
    assert (answer.status_code, answer.json["result"]) == (202, [])
    assert (task["action"], task["filepath"], task["state"]) == ("delete_images", None, "pending")
    assert answer.headers["Location"] == f"/tasks/{task['id']}"
    assert client.get(f"/tasks/{task['id']}").json["result"][0]["batch"] == task["batch"]
    batch = client.get(f"/batches/{task['batch']}").json["result"][0]
    assert (batch["total"], batch["pending"], batch["state"]) == (2, 2, "running")
    assert real_redis.zcard(OPEN) == 1


@pytest.mark.usefixtures("three")
def test_unexpected_number_deletes_nothing(client: FlaskClient, real_redis: Redis) -> None:
    answer = client.delete("/delete", json={"filepath_prefix": "cats/", "expect": 3})

    assert failure(answer) == (409, "unexpected_count", "expect")
    assert "2 images are selected, not 3" in answer.json["error"][0]
    assert not real_redis.keys("match:task:*")


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("params", "code", "field"),
    [
        ({"filepath_prefix": ""}, "wrong_parameter", "filepath_prefix"),
        ({"filepath_prefix": "", "filter[album]": "pets"}, "wrong_parameter", "filepath_prefix"),
        ({"dry_run": "true"}, "missing_parameter", "filepath_prefix"),
        ({"filepath_prefix": "x" * 2049}, "wrong_parameter", "filepath_prefix"),
        ({"filepath_prefix": "cats/", "dry_run": "perhaps"}, "wrong_parameter", "dry_run"),
        ({"filepath_prefix": "cats/", "expect": "-1"}, "wrong_parameter", "expect"),
        ({"filepath_prefix": "cats/", "filepath": "cats/1"}, "wrong_parameter", "filepath"),
        ({"filepath": "cats/1", "dry_run": "true"}, "wrong_parameter", "dry_run"),
    ],
)
def test_wrong_selection_deletes_nothing(
    client: FlaskClient, real_redis: Redis, params: dict[str, str], code: str, field: str
) -> None:
    answer = client.delete("/delete", query_string=params)

    assert failure(answer) == (400, code, field)
    assert client.get("/count").json["result"] == [3]
    assert not real_redis.keys("match:task:*")


@pytest.mark.usefixtures("three")
def test_deletion_of_a_selection_needs_the_scope_admin(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    tables = [
        table("writer", [Scope.READ, Scope.WRITE], "key writer"),
        table("admin", [*Scope], "key admin"),
        table("shop", [*Scope], "key shop", ["shop"]),
    ]
    file.write_text("".join(tables))
    client = make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))
    folder = {"filepath_prefix": "cats/"}

    def delete(key: str, params: dict[str, Any]) -> Any:
        return client.delete("/delete", json=params, headers={"Authorization": f"Bearer key {key}"})

    denied, counted, shop = (
        delete("writer", folder),
        delete("writer", folder | {"dry_run": True}),
        delete("shop", folder),
    )
    one, allowed = delete("writer", {"filepath": "catsandra"}), delete("admin", folder)

    assert [failure(answer)[:2] for answer in (denied, counted)] == [(403, "missing_scope")] * 2
    assert "admin" in denied.headers["WWW-Authenticate"]
    assert failure(shop) == (404, "unknown_collection", "collection")
    assert (one.status_code, allowed.status_code) == (200, 202)
    batch = Batches(real_redis).get(allowed.json["task"]["batch"])
    assert batch is not None
    assert batch.owner == "admin"


def test_full_backlog_accepts_no_deletion(client: FlaskClient, real_redis: Redis) -> None:
    for number in range(10):
        client.post("/add", json=IMAGE | {"filepath": f"{number}"})

    answer = client.delete("/delete", json={"filepath_prefix": "cats/"})

    assert (answer.status_code, answer.json["code"]) == (503, "overloaded")
    assert not real_redis.zrange(BATCH_REQUESTS, 0, -1)
