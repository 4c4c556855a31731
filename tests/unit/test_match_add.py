"""`match add` and its journal, against a service in memory."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from match_cli import context, state_files
from match_cli.exits import Exit
from match_cli.journal import Journal
from support.fake_match import DROPPED, LOST, Answer, FakeMatch, failure, fake_match
from support.match_command import MatchCommand

OUTAGE = failure(503, "queue_unavailable", "Redis is unavailable")


@pytest.fixture
def service() -> Iterator[FakeMatch]:
    with fake_match() as service:
        yield service


@pytest.fixture
def match(service: FakeMatch, tmp_path: Path) -> MatchCommand:
    return MatchCommand(tmp_path / "home", service.url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three images, one of them in a folder of its own, and other files."""
    folder = tmp_path / "images"
    for name in ("a.jpg", "b.PNG", "deep/c.webp", "notes.txt", ".hidden/d.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def names(folder: Path) -> set[str]:
    return {str(folder / name) for name in ("a.jpg", "b.PNG", "deep/c.webp")}


def test_a_folder_is_added_once(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    first, second = match("add", folder, "--json"), match("add", folder, "--json")

    assert (first.code, first.json["stored"], first.json["skipped"]) == (0, 3, 0)
    assert (second.code, second.json["stored"], second.json["skipped"]) == (0, 0, 3)
    assert set(service.images) == names(folder)
    assert len(service.tasks) == 3
    assert set(service.batches) == {first.json["batch"]}
    assert second.json["batch"] is None


def test_only_new_changed_and_failed_images_are_sent(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    service.rejections[str(folder / "a.jpg")] = "truncated_image"
    first = match("add", folder, "--json")
    service.rejections.clear()
    (folder / "b.PNG").write_bytes(b"changed, and longer")
    (folder / "new.gif").write_bytes(b"new")

    second = match("add", folder, "--json")

    assert (first.code, first.json["failures"]) == (Exit.INCOMPLETE, {"truncated_image": 1})
    assert (second.code, second.json["stored"], second.json["skipped"]) == (0, 3, 1)
    assert service.data[str(folder / "b.PNG")] == b"changed, and longer"


@pytest.mark.parametrize("others", [0, 5000], ids=["listed", "looked up"])
def test_images_that_others_deleted_are_sent_again(
    match: MatchCommand, service: FakeMatch, folder: Path, others: int
) -> None:
    match("add", folder)
    service.images |= {f"{folder}/{number}": {"filepath": f"{number}"} for number in range(others)}
    match("delete", folder / "a.jpg")

    second, third = match("add", folder, "--json"), match("add", folder, "--json")

    assert (second.json["stored"], second.json["skipped"], second.json["deleted_before"]) == (1, 2, 1)
    assert (third.json["stored"], third.json["skipped"], third.json["deleted_before"]) == (0, 3, 0)
    assert names(folder) <= set(service.images)


def test_images_on_stdin_are_compared_with_the_service(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    listed = "\n".join(names(folder))
    match("add", "-", stdin=listed)
    service.images.clear()

    result = match("add", "-", stdin=listed)

    assert "3 stored, 3 sent again, since the service had deleted them" in result.err
    assert set(service.images) == names(folder)


def test_a_deleted_collection_is_filled_again(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    match("add", folder, "--collection", "shop")
    missing = failure(404, "unknown_collection", "unknown collection", field="collection")
    service.fail_once("/count", missing)

    result = match("add", folder, "--collection", "shop", "--json")

    assert (result.code, result.json["deleted_before"]) == (0, 3)


def test_a_key_that_may_not_read_adds(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    match("add", folder)
    service.fail_once("/count", failure(403, "missing_scope", "the API key lacks the scope read"))

    result = match("add", folder, "--json")

    assert (result.code, result.json["skipped"]) == (0, 3)


def test_a_first_run_asks_for_no_names(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    match("add", folder)

    assert {call.path for call in service.calls} == {"/ping", "/add"}


def test_failures_are_named_and_counted(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    service.rejections[str(folder / "a.jpg")] = "truncated_image"

    result = match("add", folder)

    assert f"{folder / 'a.jpg'}: failed: truncated_image (truncated_image)" in result.err
    assert "2 stored, 1 failed\n  1 truncated_image\n" in result.err


def test_lists_patterns_and_urls_are_added(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    url = "http://192.0.2.1/e.jpg"

    result = match("add", "-", f"{folder}/**/*.webp", stdin=f"{folder / 'a.jpg'}\n\n{url}\n")

    assert result.code == 0
    assert set(service.images) == {str(folder / "a.jpg"), str(folder / "deep" / "c.webp"), url}
    assert service.images[url]["url"] == url


def test_an_image_named_twice_is_sent_once(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    result = match("add", folder / "a.jpg", folder, folder, "--json")

    assert (result.json["stored"], result.json["skipped"], len(service.tasks)) == (3, 0, 3)


def test_names_are_relative_on_request(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    match("add", folder, "--relative-to", folder, "--prefix", "shop/")

    assert set(service.images) == {"shop/a.jpg", "shop/b.PNG", "shop/deep/c.webp"}


@pytest.mark.parametrize("fault", [DROPPED, LOST, OUTAGE], ids=["after", "before", "outage"])
def test_a_second_run_finishes_what_an_outage_interrupted(
    match: MatchCommand, service: FakeMatch, folder: Path, fault: Answer | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "LONG_RETRY_FOR_S", 0)
    service.fail_once("/add", fault)

    first, second = match("add", folder), match("add", folder, "--json")

    assert (first.code, second.code) == (Exit.UNAVAILABLE, 0)
    assert set(service.images) == names(folder)
    assert len(service.tasks) == 3
    assert len({call.headers["Idempotency-Key"] for call in service.calls_to("/add")}) == 1
    # Accepted images are not sent again.
    assert len(service.calls_to("/add")) == (1 if fault == DROPPED else 2)


def test_a_second_run_continues_the_interrupted_batch(
    match: MatchCommand, service: FakeMatch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "LONG_RETRY_FOR_S", 0.0)
    service.fail_once("/add", DROPPED)
    assert match("add", folder).code == Exit.UNAVAILABLE
    [batch_id] = service.batches

    continued = match("add", folder, "--json")
    later = match("add", folder, "--json")

    assert continued.json["batch"] == batch_id
    assert later.json["batch"] != batch_id
    assert {task["batch"] for task in service.tasks.values()} == {batch_id}


def test_a_cancelled_batch_is_not_continued(
    match: MatchCommand, service: FakeMatch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "LONG_RETRY_FOR_S", 0.0)
    service.fail_once("/add", DROPPED)
    match("add", folder)
    [batch_id] = service.batches
    service.batches[batch_id] = "cancelled"

    second = match("add", folder, "--json")

    assert (second.code, second.json["stored"]) == (0, 3)
    assert second.json["batch"] != batch_id


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_an_earlier_version_is_read(
    match: MatchCommand, folder: Path, tmp_path: Path, version: int
) -> None:
    match("add", folder)
    [path] = (tmp_path / "home").rglob("journal-*.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE images DROP COLUMN listed")
        if version == 1:
            db.execute("ALTER TABLE runs DROP COLUMN batch")
        db.execute(f"PRAGMA user_version = {version}")

    again = match("add", folder, "--json")

    assert (again.code, again.json["skipped"]) == (0, 3)


def test_a_file_that_changed_is_not_resumed(
    match: MatchCommand, service: FakeMatch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "LONG_RETRY_FOR_S", 0)
    service.fail_once("/add", DROPPED)
    match("add", folder)
    (folder / "a.jpg").write_bytes(b"another image")
    (folder / "b.PNG").unlink()

    result = match("add", folder)

    assert result.code == 0
    assert service.data[str(folder / "a.jpg")] == b"another image"


def test_accepted_images_are_followed_to_their_end(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    service.is_working = False
    service.rejections[str(folder / "a.jpg")] = "truncated_image"

    first = match("add", folder, "--no-wait", "--json")
    service.finish_tasks()
    second = match("add", folder / "deep", "--json")

    assert (first.code, first.json["pending"]) == (0, 3)
    assert (second.code, second.json["stored"], second.json["failures"]) == (1, 2, {"truncated_image": 1})
    assert len(service.tasks) == 3


def test_a_task_that_expired_is_sent_again(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    service.is_working = False
    match("add", folder, "--no-wait")
    service.tasks.clear()
    service.keys.clear()
    service.is_working = True
    match("add", folder)

    result = match("add", folder, "--json")

    assert (result.code, result.json["stored"]) == (0, 3)


def test_an_image_above_the_limits_is_shrunk(match: MatchCommand, service: FakeMatch, tmp_path: Path) -> None:
    image = BytesIO()
    Image.linear_gradient("L").resize((2400, 1200)).save(image, "BMP")
    large, small = tmp_path / "large.bmp", tmp_path / "small.bmp"
    large.write_bytes(image.getvalue())
    small.write_bytes(b"small")
    service.max_upload = len(image.getvalue()) - 1

    result = match("add", large, small, "--json")

    assert (result.json["stored"], result.json["shrunk"]) == (2, 1)
    with Image.open(BytesIO(service.data[str(large)])) as stored:
        assert (stored.format, stored.size) == ("JPEG", (2048, 1024))


def test_an_image_that_cannot_be_shrunk_fails(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    service.max_upload = 6

    result = match("add", folder, "--json")

    assert (result.code, result.json["failures"], result.json["stored"]) == (1, {"too_large": 1}, 2)


def test_prune_deletes_the_images_of_vanished_files(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    service.images["another"] = {"filepath": "another"}
    match("add", folder)
    (folder / "a.jpg").unlink()

    kept = match("add", folder, "--json").json["pruned"], len(service.images)
    result = match("add", folder, "--prune", "--json")

    assert (kept, result.json["pruned"]) == ((0, 4), 1)
    assert set(service.images) == names(folder) - {str(folder / "a.jpg")} | {"another"}


def test_prune_keeps_a_name_that_moved(match: MatchCommand, service: FakeMatch, folder: Path, tmp_path: Path) -> None:
    match("add", folder, "--relative-to", folder)
    other = tmp_path / "other"
    other.mkdir()
    (folder / "a.jpg").rename(other / "a.jpg")

    match("add", other, "--relative-to", other)
    result = match("add", folder, other, "--prune", "--prefix", "x", "--relative-to", tmp_path, "--json")

    assert result.code == 0
    assert "xother/a.jpg" in service.images


def test_prune_of_an_empty_mount_point_deletes_nothing(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    share = folder / "share" / "2026"
    share.mkdir(parents=True)
    shutil.copy(next(folder.glob("*.jpg")), share / "a.jpg")
    match("add", folder)
    before = len(service.images)
    shutil.rmtree(share)

    result = match("add", folder, "--prune", "--json")

    assert (result.json["pruned"], len(service.images)) == (0, before)
    assert f"not pruned: 1 images of {share.parent}, which is empty now" in result.err


def test_prune_of_a_missing_folder_deletes_nothing(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    match("add", folder)
    folder.rename(folder.with_name("unmounted"))

    result = match("add", folder, "--prune")

    assert (result.code, len(service.images)) == (Exit.USAGE, 3)


def test_each_service_and_collection_has_a_journal(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    match("add", folder)

    result = match("add", folder, "--collection", "shop", "--json")

    assert result.json["stored"] == 3
    assert service.calls[-1].params["collection"] == "shop"


def test_two_runs_at_once_are_refused(match: MatchCommand, folder: Path) -> None:
    state = match.home / "state" / "match"
    with Journal.of(state, match.url, None):
        result = match("add", folder)

    assert result.code == Exit.USAGE
    assert "another run is using it" in result.err


@pytest.mark.parametrize("command", ["add", "duplicates"])
def test_unwritable_state_is_one_line(match: MatchCommand, folder: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()

    result = match(command, *([folder] if command == "add" else []), XDG_STATE_HOME=str(tmp_path / "file"))

    assert (result.code, result.err) == (Exit.USAGE, f"match: {tmp_path / 'file' / 'match'}: Not a directory\n")


def test_a_damaged_journal_is_one_line(match: MatchCommand, folder: Path) -> None:
    match("add", folder)
    [journal] = (match.home / "state" / "match").glob("*.db")
    journal.write_bytes(b"damaged " * 1000)

    result = match("add", folder)

    assert (result.code, result.err) == (Exit.USAGE, f"match: {journal}: file is not a database\n")


def test_an_add_continues_after_a_full_disk(
    match: MatchCommand, service: FakeMatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(300):
        (many / f"{number:03}.jpg").write_bytes(b"an image")

    @contextmanager
    def opening_on_small_disk(path: Path) -> Iterator[Any]:
        with state_files.opening(path) as database:
            database.execute("PRAGMA max_page_count = 16")
            yield database

    with monkeypatch.context() as patch:
        patch.setattr("match_cli.journal.opening", opening_on_small_disk)
        full = match("add", many)
    stored = len(service.images)
    last = match("add", many, "--json")

    assert (full.code, full.err) == (
        Exit.USAGE,
        f"match: {match.home / 'state' / 'match'}: database or disk is full; the same command continues\n",
    )
    assert 0 < stored < 300
    assert (last.code, last.json["failed"]) == (0, 0)
    assert len(service.images) == 300


def test_a_pattern_without_a_match_fails(match: MatchCommand, folder: Path) -> None:
    result = match("add", folder / "*.tiff")

    assert result.code == Exit.INCOMPLETE
    assert f"{folder}/*.tiff: No such file or directory (unreadable_file)" in result.err


def test_links_that_cannot_be_followed_fail(match: MatchCommand, folder: Path) -> None:
    (folder / "itself.jpg").symlink_to("itself.jpg")
    (folder / "deep" / "up").symlink_to("..")

    result = match("add", folder, "--json")

    assert (result.code, result.json["stored"]) == (1, 3)
    assert result.json["failures"] == {"unreadable_file": 1}


def test_control_characters_of_names_are_escaped(match: MatchCommand, tmp_path: Path) -> None:
    result = match("add", tmp_path / "red\x1b[31m\n.jpg")

    assert "red\\x1b[31m\\n.jpg: No such file or directory (unreadable_file)\n" in result.err
    assert "\x1b" not in result.err


def test_unreadable_files_fail_and_others_are_added(match: MatchCommand, folder: Path) -> None:
    (folder / "link.jpg").symlink_to("nowhere")
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(b"a name in Latin-1")

    result = match("add", folder, folder / "missing.jpg", "--json")

    assert (result.code, result.json["stored"]) == (1, 3)
    assert result.json["failures"] == {"bad_filename": 1, "unreadable_file": 1}


def test_delete_reads_names_from_stdin(match: MatchCommand, service: FakeMatch, folder: Path) -> None:
    match("add", folder)

    result = match("delete", "-", "--json", stdin="\n".join(names(folder)))

    assert (result.json, service.images) == ({"deleted": 3}, {})


@pytest.mark.parametrize("arguments", [("delete", "a"), ("add", "a.jpg")], ids=["delete", "add"])
def test_a_missing_service_has_its_exit_code(
    match: MatchCommand, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, str]
) -> None:
    monkeypatch.setattr(context, "RETRY_FOR_S", 0)
    result = match("--url", "http://127.0.0.1:9", *arguments)

    assert (result.code, result.out) == (Exit.UNAVAILABLE, "")
    assert "does not answer" in result.err
