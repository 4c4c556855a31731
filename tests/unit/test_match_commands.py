"""The commands of `match` other than `add`, against a service in memory."""

import json
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from api.access.keys import Scope, hash_of, parse
from match_cli import context, duplicates
from match_cli.commands import searches
from match_cli.commands import service as service_commands
from match_cli.duplicates import Pair, Progress, find_pairs, groups
from match_cli.exits import Exit
from match_cli.queries import SearchOptions
from match_client import Match, RequestRejected
from support.fake_match import Answer, Call, FakeMatch, failure, fake_match
from support.match_command import MatchCommand

KEY_MODE = 0o600
# A busy machine must not fail a test.
WITHIN_S = 60
LONG_S = 30


@pytest.fixture
def service() -> Iterator[FakeMatch]:
    with fake_match() as service:
        yield service


@pytest.fixture
def match(service: FakeMatch, tmp_path: Path) -> MatchCommand:
    return MatchCommand(tmp_path / "home", service.url)


@pytest.fixture
def stored(match: MatchCommand, tmp_path: Path) -> list[str]:
    """The names of four stored images: two pairs with the same bytes."""
    files = [tmp_path / f"{name}.jpg" for name in "abcd"]
    for file in files:
        Image.new("RGB", (8, 8), "red" if file.stem in "ab" else "blue").save(file)
    assert match("add", *files).code == 0
    return [str(file) for file in files]


def test_search_prints_a_table_or_json(match: MatchCommand, stored: list[str]) -> None:
    table, document = match("search", stored[0]), match("search", stored[0], "--json")

    assert table.out.splitlines()[0].split() == ["score", "filepath", "orientation"]
    assert [line.split() for line in table.out.splitlines()[1:]] == [["100.0", name, "original"] for name in stored[:2]]
    assert [result["filepath"] for result in document.json["matches"]] == stored[:2]


def test_search_takes_files_urls_and_names(match: MatchCommand, service: FakeMatch, stored: list[str]) -> None:
    match("search", stored[0], "http://192.0.2.1/a.jpg", "unknown")
    match("search", stored[0], "--stored", "--limit", "3", "--filter", "album=cats")

    calls = [{name for name in call.params if name != "limit"} for call in service.calls_to("/search")]
    assert calls == [{"image"}, {"url"}, {"filepath"}, {"filepath", "filter[album]"}]
    assert service.calls[-1].params["filepath"] == stored[0]


@pytest.mark.parametrize("command", ["search", "compare"])
def test_a_missing_file_is_named(match: MatchCommand, service: FakeMatch, stored: list[str], command: str) -> None:
    service.fail_once("/compare", failure(404, "unknown_filepath", "no image", field="filepath2"))

    result = match(command, stored[0], "typo.jpg")

    assert result.code == Exit.REJECTED
    assert "match: typo.jpg: no such file, and no image is stored under this name (unknown_filepath" in result.err


def test_a_search_goes_on_after_an_unknown_name(match: MatchCommand, stored: list[str]) -> None:
    result = match("search", "typo.jpg", stored[0], "--json")

    assert result.code == Exit.REJECTED
    assert result.json["query"] == stored[0]


def test_a_search_in_an_empty_collection_says_so(match: MatchCommand, service: FakeMatch, stored: list[str]) -> None:
    service.images.clear()

    result = match("search", stored[0], "--collection", "shop")

    assert (result.code, result.err) == (0, "no matches\nthe collection shop has no images\n")


def test_search_opens_a_page(match: MatchCommand, stored: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)

    match("search", stored[0], "--open")

    page = Path(opened[0].removeprefix("file://"))
    assert page.read_text().count("data:image/webp;base64,") == 3
    page.unlink()


def test_duplicates_are_grouped(match: MatchCommand, stored: list[str], tmp_path: Path) -> None:
    result = match("duplicates", "--json")
    page = match("duplicates", "--html", tmp_path / "out.html")

    lines = [json.loads(line) for line in result.out.splitlines()]
    assert lines == [{"score": 100.0, "filepaths": stored[:2]}, {"score": 100.0, "filepaths": stored[2:]}]
    assert "groups of similar images: 2" in page.err
    assert (tmp_path / "out.html").read_text().count("data:image/webp;base64,") == 4


def test_interrupted_duplicates_continue(
    match: MatchCommand, service: FakeMatch, stored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "PAGE", 2)
    monkeypatch.setattr(context, "LONG_RETRY_FOR_S", 0)
    service.failed_lines[stored[2]] = {"code": "store_unavailable", "retry_after": 0}
    first = match("duplicates")
    service.failed_lines.clear()
    service.calls.clear()

    second = match("duplicates", "--json")

    assert (first.code, second.code) == (Exit.UNAVAILABLE, 0)
    lines = [line for call in service.calls_to("/search/batch") for line in call.lines if line]
    assert [line["filepath"] for line in lines] == stored[2:]
    assert len(second.out.splitlines()) == 2


@pytest.mark.usefixtures("stored")
def test_duplicates_and_batches_outlast_a_busy_service(
    match: MatchCommand, service: FakeMatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "RETRY_FOR_S", 0)
    [batch_id] = service.batches
    for path in ("/search/batch", f"/batches/{batch_id}"):
        service.fail_once(path, failure(503, "overloaded", "server overloaded, retry later", retry_after=0))

    grouped = match("duplicates", "-j", "2", "--json")
    followed = match("batches", "follow", batch_id)

    assert (grouped.code, len(grouped.out.splitlines())) == (0, 2)
    assert (followed.code, len(followed.out.splitlines())) == (0, 1)


def test_an_error_stops_the_other_searches(service: FakeMatch, stored: list[str], tmp_path: Path) -> None:
    waiting, stop, stops = Event(), Event(), []
    service.failed_lines[stored[0]] = {"code": "unknown_mode"}

    def busy(call: Call) -> Answer | None:
        """Let the second search wait, and then the first one fail."""
        if call.path != "/search/batch" or (waiting.is_set() and {"filepath": stored[0]} in call.lines):
            return None
        is_second = {"filepath": stored[1]} in call.lines
        return failure(503, "overloaded", "server overloaded, retry later", retry_after=LONG_S if is_second else 0)

    def pause(seconds: float) -> None:
        if seconds >= LONG_S:
            waiting.set()
            stops.append(stop.wait(WITHIN_S))
            raise context.StoppedError

    service.faults.append(busy)

    with (
        Match(service.url, pause=pause) as client,
        Progress(tmp_path / "progress.db") as progress,
        pytest.raises(RequestRejected),
    ):
        find_pairs(client, progress, SearchOptions(), jobs=2, report=lambda _: None, stop=stop)

    assert stops == [True]


def test_groups_are_what_pairs_connect() -> None:
    pairs = [
        Pair("a", "b", 90.0),
        Pair("c", "d", 80.0),
        Pair("b", "e", 70.0),
        Pair("d", "f", 60.0),
        Pair("e", "f", 99.0),
    ]

    connected = groups(iter([*pairs, Pair("x", "y", 95.0)]))

    assert [(list(group.names), group.score) for group in connected] == [(list("abcdef"), 60.0), (["x", "y"], 95.0)]


def test_a_page_escapes_names(match: MatchCommand, service: FakeMatch, stored: list[str], tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    service.images[name] = {**service.images[stored[0]], "filepath": name}
    service.data[name] = service.data[stored[0]]

    match("duplicates", "--html", tmp_path / "out.html")

    page = (tmp_path / "out.html").read_text()
    assert name not in page
    assert "&lt;script&gt;" in page


def test_a_page_has_thumbnails_of_the_service(
    match: MatchCommand, service: FakeMatch, stored: list[str], tmp_path: Path
) -> None:
    for name in stored:
        Path(name).unlink()
    service.thumbnails[stored[0]] = b"a WebP"
    service.images[stored[1]]["url"] = "http://192.0.2.1/b.jpg?a=1&b=2"

    match("duplicates", "--html", tmp_path / "out.html")

    page = (tmp_path / "out.html").read_text()
    assert f"data:image/webp;base64,{b64encode(b'a WebP').decode()}" in page
    assert 'src="http://192.0.2.1/b.jpg?a=1&amp;b=2"' in page
    assert page.count("no preview") == 2


def test_compare_prints_the_score(match: MatchCommand, stored: list[str]) -> None:
    assert match("compare", stored[0], stored[1]).out == "99.5\n"
    assert match("compare", stored[0], "unknown", "--json").json["score"] == 99.5


def test_list_and_export_show_each_image(match: MatchCommand, stored: list[str], tmp_path: Path) -> None:
    listed, exported = match("list"), match("export", tmp_path / "images.jsonl")

    lines = [json.loads(line) for line in (tmp_path / "images.jsonl").read_text().splitlines()]
    assert listed.out.splitlines() == stored
    assert [line["filepath"] for line in lines] == stored
    assert lines[0] == {"collection": "default", "filepath": stored[0], "metadata": None, "url": None}
    assert exported.err == "4 exported, 4 without a URL: match import needs their files\n"


@pytest.mark.usefixtures("stored")
def test_an_import_asks_for_the_files_of_uploaded_images(match: MatchCommand, tmp_path: Path) -> None:
    match("export", tmp_path / "images.jsonl")

    result = match("import", tmp_path / "images.jsonl", "--collection", "museum")

    assert result.code == Exit.INCOMPLETE
    assert "images.jsonl:1: the image was uploaded, and has no URL: add its file" in result.err


@pytest.mark.parametrize("command", ["search", "import"])
def test_a_folder_is_no_file(match: MatchCommand, tmp_path: Path, command: str) -> None:
    result = match(command, tmp_path)

    assert result.code in {Exit.USAGE, Exit.REJECTED}
    assert f"{tmp_path}: a folder" in result.err


def test_folders_are_listed_and_exported(match: MatchCommand, service: FakeMatch, stored: list[str]) -> None:
    match("edit", stored[0], "--set", "album=cats")

    listed = match("list", "--prefix", stored[0][:-5])
    exported = match("export", "--prefix", stored[0], "--filter", "album=cats")

    assert listed.out.splitlines() == stored
    assert exported.json == {"collection": "default", "filepath": stored[0], "metadata": {"album": "cats"}, "url": None}
    assert service.calls_to("/list")[-1].params["filepath_prefix"] == stored[0][:-5]


def test_metadata_are_edited(match: MatchCommand, service: FakeMatch, stored: list[str]) -> None:
    first = match("edit", *stored[:2], "--set", "album=cats", "--set", "year=2026")
    second = match("edit", stored[0], "--unset", "year", "--patch", '{"size": {"w": 1}}', "--json")

    assert (first.err, second.json) == ("2 edited\n", {"edited": 1, "waiting": 0, "unknown": 0})
    assert service.images[stored[0]]["metadata"] == {"album": "cats", "size": {"w": 1}}
    assert service.images[stored[1]]["metadata"] == {"album": "cats", "year": "2026"}


def test_edit_goes_on_after_an_unknown_name(match: MatchCommand, service: FakeMatch, stored: list[str]) -> None:
    names = [stored[0], "unknown", stored[1]]

    edited = match("edit", "-", "--set", "album=cats", stdin="\n".join(names))
    as_json = match("edit", "unknown", "--set", "album=cats", "--json")

    assert edited.err == "unknown: no image is stored under this filepath\n2 edited, 1 unknown\n"
    assert (edited.code, as_json.code) == (Exit.INCOMPLETE, Exit.INCOMPLETE)
    assert as_json.json == {"edited": 0, "waiting": 0, "unknown": 1}
    assert [service.images[name]["metadata"] for name in stored[:2]] == [{"album": "cats"}] * 2


def test_edit_ends_at_another_error(match: MatchCommand, service: FakeMatch, stored: list[str]) -> None:
    service.fail_once("/images", failure(404, "unknown_collection", "unknown collection", field="collection"))

    edited = match("edit", *stored, "--set", "album=cats")

    assert (edited.code, len(service.calls_to("/images"))) == (Exit.REJECTED, 1)


@pytest.mark.parametrize("changes", [[], ["--set", "album"], ["--patch", "[1]"], ["--patch", "{"]])
def test_wrong_edits_are_reported(match: MatchCommand, service: FakeMatch, changes: list[str]) -> None:
    result = match("edit", "a.jpg", *changes)

    assert (result.code, service.calls_to("/images")) == (Exit.USAGE, [])


def test_folders_are_deleted(match: MatchCommand, service: FakeMatch, stored: list[str]) -> None:
    folder = stored[0].removesuffix("a.jpg")
    match("edit", stored[3], "--set", "album=cats")

    dry = match("delete", "--prefix", folder, "--dry-run", "--json")
    dry_expected = match("delete", "--prefix", folder, "--dry-run", "--expect", "3")
    wrong = match("delete", "--prefix", folder, "--expect", "3")
    unconfirmed = match("delete", "--prefix", folder)
    before = list(service.images)
    album = match("delete", "--filter", "album=cats", "--yes")
    rest = match("delete", "--prefix", folder, "--expect", "3", "--json")

    assert (dry.json, dry_expected.err) == ({"selected": 4}, "4 would be deleted\n")
    assert (wrong.code, before) == (Exit.REJECTED, stored)
    assert unconfirmed.code != Exit.OK
    assert album.err.startswith("1 are being deleted: match tasks 1")
    assert (rest.json["state"], service.images) == ("pending", {})


@pytest.mark.parametrize(
    "arguments", [[], ["a.jpg", "--prefix", "a"], ["a.jpg", "--dry-run"], ["a.jpg", "--expect", "1"]]
)
def test_names_and_selections_are_not_mixed(match: MatchCommand, service: FakeMatch, arguments: list[str]) -> None:
    result = match("delete", *arguments)

    assert (result.code, service.calls_to("/delete")) == (Exit.USAGE, [])


def test_export_does_not_overwrite(match: MatchCommand, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")

    result = match("export", tmp_path / "kept")

    assert (result.code, (tmp_path / "kept").read_text()) == (Exit.USAGE, "kept")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_table_is_imported(match: MatchCommand, service: FakeMatch, tmp_path: Path, suffix: str) -> None:
    table = tmp_path / f"table{suffix}"
    (tmp_path / "b.jpg").write_bytes(b"b")
    write_table(table)

    first = match("import", table, "--metadata", "album", "--json")
    second = match("import", table, "--metadata", "album", "--json")

    assert (first.code, first.json["stored"], second.json["skipped"]) == (0, 2, 2)
    assert service.images["one"]["metadata"] == {"year": 2026, "album": "cats"}
    assert service.images["one"]["url"] == "http://192.0.2.1/a.jpg"
    assert service.data[str(tmp_path / "b.jpg")] == b"b"


def write_table(path: Path) -> None:
    rows = [
        {
            "url": "http://192.0.2.1/a.jpg",
            "path": None,
            "filepath": "one",
            "metadata": '{"year": 2026}',
            "album": "cats",
        },
        {"url": None, "path": "b.jpg", "filepath": None, "metadata": None, "album": None},
    ]
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [["" if value is None else value.replace('"', '""') for value in row.values()] for row in rows]
        path.write_text(
            "\n".join([",".join(rows[0]), *(",".join(f'"{value}"' for value in line) for line in lines)]) + "\n"
        )
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_table_is_imported_into_a_collection(match: MatchCommand, service: FakeMatch, tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text("url,filepath\nhttp://192.0.2.1/a.jpg,a\n")

    imported = match("import", table, "--collection", "shop", "--json")
    added = match("add", "http://192.0.2.1/b.jpg", "--collection", "shop", "--json")

    assert (imported.code, imported.json["stored"]) == (0, 1)
    assert (added.code, added.json["stored"]) == (0, 1)
    assert {task["collection"] for task in service.tasks.values()} == {"shop"}


def test_changed_metadata_are_sent_again(match: MatchCommand, service: FakeMatch, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text('{"url": "http://192.0.2.1/a", "metadata": {"year": 1}}\n{"url": "http://192.0.2.1/b"}\n')
    match("import", table)
    table.write_text('{"url": "http://192.0.2.1/a", "metadata": {"year": 2}}\n{"url": "http://192.0.2.1/b"}\n')

    result = match("import", table, "--json")

    assert (result.json["stored"], result.json["skipped"]) == (1, 1)
    assert service.images["http://192.0.2.1/a"]["metadata"] == {"year": 2}


def test_bad_rows_are_named_and_others_imported(match: MatchCommand, service: FakeMatch, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    rows = [
        '{"url": "http://192.0.2.1/a"}',
        "not JSON",
        "{}",
        '{"url": "http://192.0.2.1/b", "colour": 1}',
        '{"url": 1}',
    ]
    table.write_text("\n".join(rows))

    result = match("import", table)

    assert (result.code, list(service.images)) == (Exit.INCOMPLETE, ["http://192.0.2.1/a"])
    assert f"{table}:2: the line is not a JSON object (bad_row)" in result.err
    assert f"{table}:4: unknown column colour; --metadata colour puts it into the metadata" in result.err


def test_status_reports_an_outage(match: MatchCommand, service: FakeMatch, stored: list[str]) -> None:
    working = match("status", "--collection", "default", "--json")
    service.fail_once("/readyz", failure(503, "not_ready", "searches are unavailable"))
    broken = match("status")

    assert (working.code, working.json["images"]) == (0, len(stored))
    assert (broken.code, broken.out) == (Exit.UNAVAILABLE, f"{match.url}: not ready\n  searches are unavailable\n")


def test_status_counts_all_collections(match: MatchCommand, service: FakeMatch) -> None:
    service.collections = {
        name: {"name": name, "images": images, "max_images": None} for name, images in (("a", 1), ("shop", 51))
    }

    text, document = match("status").out, match("status", "--json").json

    assert text == f"{match.url}: ready\nimages: 52 (shop 51, a 1)\n"
    assert (document["images"], document["collections"]) == (52, {"a": 1, "shop": 51})


def test_a_batch_is_listed_shown_followed_and_cancelled(
    match: MatchCommand, service: FakeMatch, tmp_path: Path
) -> None:
    service.rejections[str(tmp_path / "b.jpg")] = "truncated_image"
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    batch_id = match("add", *sorted(tmp_path.glob("*.jpg")), "--json").json["batch"]

    listed = match("batches", "list")
    shown = match("batches", "show", batch_id, "--json")
    followed = match("batches", "follow", batch_id)
    cancelled = match("batches", "cancel", batch_id)

    accepted = ["2026-03-01", "09:30:00+00:00"]
    assert listed.out.splitlines()[1].split() == [batch_id, *accepted, "ended", "2", "1", "1", "0"]
    assert (shown.json["total"], shown.json["failures"]) == (2, {"truncated_image": 1})
    assert followed.out == f"{batch_id} ended: 1 of 2 done, 1 failed: 1 truncated_image, 2/s\n"
    assert followed.code == Exit.INCOMPLETE
    assert cancelled.out.startswith(f"{batch_id} cancelled")
    assert match("batches", "show", "unknown").code == Exit.REJECTED


def test_tasks_of_a_batch_are_listed(
    match: MatchCommand, service: FakeMatch, stored: list[str], tmp_path: Path
) -> None:
    [batch_id] = service.batches
    (tmp_path / "other.jpg").write_bytes(b"other")
    match("add", tmp_path / "other.jpg")

    tasks = match("tasks", "--batch", batch_id, "--json")

    assert [json.loads(line)["filepath"] for line in tasks.out.splitlines()] == stored


def test_tasks_of_a_batch_are_listed_by_code(match: MatchCommand, service: FakeMatch, tmp_path: Path) -> None:
    codes = {"a": "timeout", "b": "truncated_image"}
    service.rejections = {str(tmp_path / f"{name}.jpg"): code for name, code in codes.items()}
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    batch_id = match("add", *sorted(tmp_path.glob("*.jpg")), "--json").json["batch"]

    tasks = match("tasks", "--batch", batch_id, "--code", "timeout", "--json")

    assert (tasks.code, tasks.json["filepath"]) == (0, str(tmp_path / "a.jpg"))


def test_failed_tasks_are_listed_and_retried(match: MatchCommand, service: FakeMatch, tmp_path: Path) -> None:
    service.rejections = {str(tmp_path / "a.jpg"): "timeout"}
    (tmp_path / "a.jpg").write_bytes(b"a")
    match("add", tmp_path / "a.jpg")
    service.rejections = {}

    [task] = [json.loads(line) for line in match("tasks", "--json").out.splitlines()]
    retried = match("tasks", task["id"], "--retry", "--json")
    none = match("tasks", "--retry")

    assert (task["state"], task["error"]["code"]) == ("failed", "timeout")
    assert retried.json["state"] == "succeeded"
    assert none.err == "0 enqueued again\n"


def test_cancel_needs_the_task(match: MatchCommand) -> None:
    assert match("tasks", "--cancel").code == Exit.USAGE
    assert match("tasks", "unknown", "--cancel").code == Exit.REJECTED


def test_collections_are_created_listed_and_deleted(match: MatchCommand) -> None:
    created = match("collections", "put", "shop", "--max-images", "5", "--json")
    listed = match("collections", "list")
    refused = match("collections", "delete", "shop", stdin="n\n")
    deleted = match("collections", "delete", "shop", "--yes")

    assert created.json == {"name": "shop", "images": 0, "max_images": 5}
    assert listed.out.splitlines()[1].split() == ["shop", "0", "5"]
    assert (refused.code, deleted.code) == (Exit.USAGE, 0)
    assert match("collections", "list", "--json").out == ""


def write_profile(match: MatchCommand, name: str, url: str, *, mode: int = KEY_MODE) -> None:
    profiles = match.home / "config" / "match" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(f'[{name}]\nurl = "{url}"\napi_key = "match_secret"\n')
    profiles.chmod(mode)


def test_the_key_comes_from_environment_or_profile(match: MatchCommand, service: FakeMatch) -> None:
    service.api_key = "match_secret"
    write_profile(match, "shop", match.url)

    codes = [
        match("list").code,
        match("list", MATCH_API_KEY="match_secret").code,
        match("--profile", "shop", "list").code,
        match("list", MATCH_URL="", MATCH_PROFILE="shop").code,
        match("--profile", "missing", "list").code,
    ]

    assert codes == [Exit.REJECTED, 0, 0, 0, Exit.USAGE]


def test_a_key_is_not_sent_to_another_url(match: MatchCommand, service: FakeMatch) -> None:
    write_profile(match, "default", "http://192.0.2.1")

    match("--url", match.url, "list")

    assert "Authorization" not in service.calls[-1].headers


def test_a_key_that_others_can_read_is_refused(match: MatchCommand) -> None:
    write_profile(match, "shop", match.url, mode=0o644)

    result = match("--profile", "shop", "list")

    assert (result.code, "match_secret" in result.err) == (Exit.USAGE, False)
    assert "chmod 600" in result.err


def test_the_service_accepts_an_edited_keys_file(match: MatchCommand, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    comment = "# Keys of the shop.\n\n"
    file.write_text(comment)

    key = match("keys", "add", "shop", "read", "write", "--file", file).out.strip()
    match("keys", "add", "old", "admin", "--file", file)
    match("keys", "remove", "old", "--file", file)

    [entry] = parse(file.read_bytes())
    assert (entry.name, entry.sha256, entry.scopes) == ("shop", hash_of(key), {Scope.READ, Scope.WRITE})
    assert file.read_text().startswith(comment)
    assert key not in file.read_text()


def test_a_new_keys_file_is_private(match: MatchCommand, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"

    match("keys", "add", "shop", "read", "--collection", "shop-*", MATCH_API_KEYS_FILE=str(file))

    assert file.stat().st_mode & 0o777 == KEY_MODE
    assert tomllib.loads(file.read_text())["keys"][0]["collections"] == ["shop-*"]


def test_invalid_keys_leave_the_file_unchanged(match: MatchCommand, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    match("keys", "add", "shop", "read", "--file", file)
    before = file.read_text()

    codes = [
        match("keys", "add", *arguments, "--file", file).code
        for arguments in (["shop", "read"], ["a b", "read"], ["other", "root"])
    ]

    assert codes == [Exit.USAGE] * 3
    assert file.read_text() == before


def test_serve_needs_a_checkout(match: MatchCommand, tmp_path: Path) -> None:
    result = match("serve", "--folder", tmp_path)

    assert (result.code, "needs a checkout" in result.err) == (Exit.USAGE, True)


def test_serve_runs_what_make_dev_runs(match: MatchCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(service_commands.os, "execvp", lambda _, command: commands.append(command))
    monkeypatch.setattr(service_commands.os, "chdir", lambda _: None)

    match("serve")

    root = Path(__file__).resolve().parents[2]
    assert commands == [[str(root / ".venv" / "bin" / "python"), "-m", "dev.stack"]] or commands == [["make", "dev"]]


def test_queue_is_shown_paused_and_resumed(match: MatchCommand, service: FakeMatch) -> None:
    before, paused = match("queue", "status"), match("queue", "pause", "--json")
    while_paused = service.is_paused
    resumed = match("queue", "resume")

    assert before.out.splitlines() == [
        "queue: running, workers: 1",
        "waiting: 0, the oldest for 2 s",
        "running: 0, 2.5 a second",
        "failed: 0",
    ]
    assert (paused.json["is_paused"], while_paused, service.is_paused) == (True, True, False)
    assert resumed.out.startswith("queue: running")


def test_progress_of_filtered_duplicates_counts_selected_images(
    match: MatchCommand, service: FakeMatch, stored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    totals: list[int] = []
    original = searches.SearchProgress
    monkeypatch.setattr(searches, "SearchProgress", lambda total, done: totals.append(total) or original(total, done))
    for name in stored[:2]:
        service.images[name]["metadata"] = {"album": "cats"}

    result = match("duplicates", "--filter", "album=cats", "--json")

    assert totals == [2]
    assert [json.loads(line)["filepaths"] for line in result.out.splitlines()] == [stored[:2]]


def test_usage_prints_a_table_or_json(match: MatchCommand, service: FakeMatch) -> None:
    service.usage = [{"key": "shop", "collection": None, "requests": 3, "adds": 2, "searches": 1, "bytes": 9}]

    table, document = match("usage"), match("usage", "--days", "7", "--json")

    assert table.out.splitlines()[0].split() == [
        "key",
        "collection",
        "requests",
        "adds",
        "searches",
        "bytes",
    ]
    assert document.json == service.usage[0]
    assert service.calls_to("/usage")[1].params == {"days": "7"}
