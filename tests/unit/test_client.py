"""The Python client against a service in memory."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Thread

import pytest
import requests

from common.net.webhook_signing import signed_headers
from match_client import (
    AccessDenied,
    Batch,
    Conflict,
    ConnectionLost,
    ImageError,
    InvalidSource,
    InvalidWebhook,
    Match,
    NewImage,
    NotFound,
    Patched,
    SearchQuery,
    TaskRunning,
    Unavailable,
    UnexpectedReply,
    verify,
)
from match_client.adds import MAX_LINES
from match_client.searches import MAX_LINES as SEARCH_LINES
from match_client.transport import Request, Transport
from support.fake_match import DROPPED, LOST, Answer, Call, FakeMatch, failure, fake_match, ok
from support.http_servers import Handler, LocalServer, serving

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
IMAGE = b"an image"
OVERLOADED = failure(503, "overloaded", "server overloaded, retry later", retry_after=0)


@pytest.fixture
def service() -> Iterator[FakeMatch]:
    with fake_match() as service:
        yield service


@pytest.fixture
def match(service: FakeMatch) -> Iterator[Match]:
    with Match(service.url) as match:
        yield match


def urls(number: int) -> list[NewImage]:
    return [NewImage(image=f"http://192.0.2.1/{index}.jpg", filepath=f"{index}") for index in range(number)]


def break_once(service: FakeMatch, path: str, *, accepted: int) -> None:
    """Let the next request end without a reply, after the service has accepted its first lines."""
    left = [accepted]

    def fault(call: Call) -> str | None:
        if not left or call.path != path:
            return None
        del call.lines[left.pop() :]
        return DROPPED

    service.faults.append(fault)


def files(number: int) -> list[NewImage]:
    return [NewImage(image=f"image {index}".encode(), filepath=f"{index}") for index in range(number)]


@pytest.mark.parametrize("form", ["bytes", "path", "text", "file"])
def test_an_image_is_added_from_any_source(match: Match, service: FakeMatch, tmp_path: Path, form: str) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(IMAGE)
    source = {"bytes": IMAGE, "path": path, "text": str(path), "file": BytesIO(IMAGE)}[form]

    task = match.add(source, "cats/été.jpg", metadata={"album": "chats"}, wait_s=5)

    assert (task.state, task.filepath) == ("succeeded", "cats/été.jpg")
    assert service.data == {"cats/été.jpg": IMAGE}
    assert service.images["cats/été.jpg"]["metadata"] == {"album": "chats"}
    assert service.calls[0].headers["Prefer"] == "wait=5"


def test_a_url_is_sent_and_not_fetched(match: Match, service: FakeMatch) -> None:
    match.add("https://192.0.2.1/cat.jpg", "cat")

    assert service.images["cat"]["url"] == "https://192.0.2.1/cat.jpg"


def test_an_unreadable_file_is_an_error(match: Match, tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="No such file") as raised:
        match.add(tmp_path / "missing.jpg", "cat")

    assert raised.value.code == "unreadable_file"


@pytest.mark.parametrize("fault", [DROPPED, LOST, OVERLOADED, failure(429, "too_many_requests", "", retry_after=0)])
def test_a_failed_request_is_repeated_without_a_second_task(
    match: Match, service: FakeMatch, fault: Answer | str
) -> None:
    service.fail_once("/add", fault, times=2)

    match.add(IMAGE, "cat")

    assert len(service.tasks) == 1
    assert len({call.headers["Idempotency-Key"] for call in service.calls}) == 1
    assert len(service.calls) == 3


def test_retry_waits_as_long_as_the_service_requests(service: FakeMatch) -> None:
    pauses: list[float] = []
    transport = Transport(service.url, pause=pauses.append)
    service.fail_once("/count", failure(503, "overloaded", "", retry_after=7))

    transport.send(Request(method="GET", path="/count"))

    assert pauses == [7.0]


def test_an_outage_longer_than_the_retries_is_reported(service: FakeMatch) -> None:
    service.fail_once("/count", failure(503, "store_unavailable", "the store is unavailable", retry_after=5), times=9)

    with Match(service.url, retry_for_s=0) as match, pytest.raises(Unavailable) as raised:
        match.count()

    assert (raised.value.code, raised.value.retry_after, raised.value.request_id) == ("store_unavailable", 5.0, "r1")
    assert len(service.calls) == 1


def test_no_service_is_a_lost_connection() -> None:
    with LocalServer(Handler) as unused:
        address = unused.url

    with Match(address, retry_for_s=0) as match, pytest.raises(ConnectionLost, match="connection refused"):
        match.count()


def test_another_program_is_not_taken_for_the_service() -> None:
    class Other(Handler):
        def answer(self) -> None:
            self.reply(200, b"<html>", {"Content-Type": "text/html"})

    with serving(LocalServer(Other)) as server, Match(server.url) as match, pytest.raises(UnexpectedReply):
        match.count()


def test_the_key_is_sent_and_its_absence_reported(service: FakeMatch) -> None:
    service.api_key = "match_secret"

    with Match(service.url, "match_secret") as match:
        match.count()
    with Match(service.url) as match, pytest.raises(AccessDenied) as raised:
        match.count()

    assert (raised.value.code, raised.value.status) == ("key_required", 401)


def test_a_failed_image_has_its_reason(match: Match, service: FakeMatch) -> None:
    service.rejections["cat"] = "not_an_image"

    with pytest.raises(ImageError) as raised:
        match.add(IMAGE, "cat", wait_s=5)

    assert raised.value.code == "not_an_image"


def test_many_outcomes_are_in_order_with_failures(match: Match, service: FakeMatch, tmp_path: Path) -> None:
    service.rejections["b"] = "not_an_image"
    named = [NewImage(image=name.encode(), filepath=name) for name in "abc"]
    images = [*named, NewImage(image=tmp_path / "missing", filepath="gone"), *urls(2)]

    outcomes = list(match.add_many(images, wait_s=5))

    assert [outcome.number for outcome in outcomes] == [0, 1, 2, 3, 4, 5]
    assert [outcome.code for outcome in outcomes] == [None, "not_an_image", None, "unreadable_file", None, None]
    assert [call.path for call in service.calls] == ["/add", "/add/batch"]


def test_many_are_read_as_they_are_sent(match: Match, service: FakeMatch) -> None:
    read: list[str] = []

    def images() -> Iterator[NewImage]:
        for image in urls(3 * MAX_LINES):
            read.append(image.filepath)
            yield image

    first = next(match.add_many(images()))

    assert first.filepath == "0"
    assert len(read) == MAX_LINES + 1
    assert [len(call.lines) for call in service.calls] == [MAX_LINES + 1]


@pytest.mark.parametrize("accepted", [0, 120, MAX_LINES])
def test_only_what_a_broken_request_left_is_sent_again(match: Match, service: FakeMatch, accepted: int) -> None:
    break_once(service, "/add/batch", accepted=accepted)

    outcomes = list(match.add_many(urls(MAX_LINES + 50)))

    sent = [sum(line is not None for line in call.lines) for call in service.calls_to("/add/batch")]
    assert [outcome.filepath for outcome in outcomes] == [f"{index}" for index in range(MAX_LINES + 50)]
    assert [outcome.task and outcome.task.filepath for outcome in outcomes] == [one.filepath for one in outcomes]
    assert len(service.tasks) == MAX_LINES + 50
    assert sum(outcome.replayed for outcome in outcomes) == accepted
    # The call that broke has only the lines that were accepted.
    assert sum(sent) == MAX_LINES + 50


def test_a_name_twice_in_a_request_is_sent_again(match: Match, service: FakeMatch) -> None:
    service.fail_once("/add/batch", DROPPED)

    outcomes = list(match.add_many([*urls(2), *urls(1)]))

    sent = [sum(line is not None for line in call.lines) for call in service.calls_to("/add/batch")]
    assert sent == [3, 2]
    assert len({outcome.task.id for outcome in outcomes if outcome.task}) == len(service.tasks) == 3


def test_a_key_that_lists_no_tasks_sends_all_again(match: Match, service: FakeMatch) -> None:
    service.fail_once("/add/batch", DROPPED)
    service.fail_once("/tasks", failure(403, "missing_scope", "the API key lacks the scope read"), times=9)

    outcomes = list(match.add_many(urls(3)))

    assert [outcome.replayed for outcome in outcomes] == [True] * 3
    assert len(service.tasks) == 3


def test_files_of_a_broken_request_are_followed(service: FakeMatch) -> None:
    service.is_working = False
    service.rejections["1"] = "truncated_image"
    service.fail_once("/add", DROPPED)

    with Match(service.url, pause=lambda _: service.finish_tasks()) as match:
        outcomes = list(match.add_many(files(2), wait_s=30))

    assert [(outcome.status, outcome.code) for outcome in outcomes] == [("ok", None), ("fail", "truncated_image")]
    assert len(service.calls_to("/add")) == 1


def test_a_reply_that_ends_early_is_completed(match: Match, service: FakeMatch) -> None:
    service.fail_once("/add/batch", Answer(200, [{"line": 1, "status": "fail", "error": [], "code": "truncated_body"}]))

    outcomes = list(match.add_many(urls(3)))

    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "ok"]


@pytest.mark.parametrize("images", [files(5), urls(5)], ids=["files", "urls"])
def test_images_beyond_the_capacity_are_sent_again(match: Match, service: FakeMatch, images: list[NewImage]) -> None:
    service.capacity = 2

    def free(_: Call) -> None:
        if len(service.calls) > 1:
            service.capacity = 5

    service.faults.append(free)

    outcomes = list(match.add_many(images))

    assert [outcome.status for outcome in outcomes] == ["ok"] * 5
    assert len(service.tasks) == 5
    assert len(service.calls) == 2


def test_a_form_above_the_limit_is_halved(match: Match, service: FakeMatch) -> None:
    too_large = failure(413, "too_large", "the image or the body is too large, or the form has too many parts")
    service.faults.append(lambda call: too_large if len(call.params) > 3 or "images[2]" in call.params else None)

    outcomes = list(match.add_many(files(4)))

    assert [outcome.code for outcome in outcomes] == [None, None, "too_large", None]


def test_search_passes_its_parameters_on(match: Match, service: FakeMatch) -> None:
    match.add(IMAGE, "cat", metadata={"album": "cats"})

    matches = match.search(IMAGE, limit=5, min_score=60.5, filter={"album": "cats", "year": 2026}, collection="shop")

    assert [(match.filepath, match.score, match.metadata) for match in matches] == [("cat", 100.0, {"album": "cats"})]
    params = dict(service.calls[-1].params)
    del params["image"]
    assert params == {
        "limit": "5",
        "min_score": "60.5",
        "filter[album]": "cats",
        "filter[year]": "2026",
        "collection": "shop",
    }


def test_search_by_an_unknown_filepath_is_not_found(match: Match) -> None:
    with pytest.raises(NotFound) as raised:
        match.search(filepath="missing")

    assert (raised.value.code, raised.value.field) == ("unknown_filepath", "filepath")


def test_search_requires_one_query(match: Match) -> None:
    with pytest.raises(TypeError, match="either image or filepath"):
        match.search()


def test_list_walks_all_pages(match: Match, service: FakeMatch) -> None:
    list(match.add_many(urls(45)))

    names = list(match.list(page=20))

    assert names == [f"{index}" for index in range(45)]
    assert len(service.calls_to("/list")) == 3


def test_delete_splits_what_one_request_cannot_name(match: Match, service: FakeMatch) -> None:
    list(match.add_many(urls(1500)))

    match.delete(f"{index}" for index in range(1, 1500))

    assert list(service.images) == ["0"]
    assert len(service.calls_to("/delete")) == 2


def test_images_of_a_folder_are_walked(match: Match, service: FakeMatch) -> None:
    list(match.add_many(urls(45)))

    images = list(match.images(filepath_prefix="1", page=5))

    assert [image.filepath for image in images] == ["1", *[f"{index}" for index in range(10, 20)]]
    assert list(match.list(filepath_prefix="4")) == ["4", *[f"{index}" for index in range(40, 45)]]
    assert match.count(filepath_prefix="4") == 6
    assert len(service.calls_to("/images")) == 3


def test_metadata_are_patched(match: Match, service: FakeMatch) -> None:
    match.add(IMAGE, "cat", metadata={"a": 1, "b": 2}, wait_s=1)

    patched = match.patch("cat", {"a": None, "c": [1]})
    service.fail_once("/images", Answer(202, {"status": "ok", "error": [], "result": []}))
    waiting = match.patch("cat", {"d": 1})

    assert patched == Patched(is_stored=True, metadata={"b": 2, "c": [1]})
    assert waiting == Patched(is_stored=False)
    with pytest.raises(NotFound):
        match.patch("dog", None)


def test_a_folder_is_deleted_if_its_count_is_expected(match: Match, service: FakeMatch) -> None:
    list(match.add_many(urls(20)))

    count = match.count_selected(filepath_prefix="1")
    with pytest.raises(Conflict) as raised:
        match.delete_selected(filepath_prefix="1", expect=count + 1)
    task = match.delete_selected(filepath_prefix="1", expect=count)

    assert (count, raised.value.code) == (11, "unexpected_count")
    assert (task.state, task.batch) == ("pending", "b")
    assert len(service.images) == 9


def test_deletion_of_a_folder_is_sent_once(match: Match, service: FakeMatch) -> None:
    service.fail_once("/delete", DROPPED)

    with pytest.raises(ConnectionLost):
        match.delete_selected(filepath_prefix="1")

    assert len(service.calls_to("/delete")) == 1


def test_wait_returns_an_ended_task(match: Match, service: FakeMatch) -> None:
    service.is_working = False
    task = match.add(IMAGE, "cat")
    worker = Thread(target=service.finish_tasks)
    service.faults.append(
        lambda _: worker.start() if not worker.ident and len(service.calls_to(f"/tasks/{task.id}")) == 2 else None
    )

    ended = match.wait(task)

    assert (task.state, ended.state) == ("pending", "succeeded")
    assert match.image("cat").width == 10


def test_wait_reports_a_task_that_goes_on(match: Match, service: FakeMatch) -> None:
    service.is_working = False
    task = match.add(IMAGE, "cat")

    with pytest.raises(TaskRunning):
        match.wait(task, timeout_s=0)


def test_failed_tasks_are_listed_and_retried(match: Match, service: FakeMatch) -> None:
    service.rejections = {"0": "timeout", "1": "timeout"}
    list(match.add_many(urls(2)))
    [first, _] = match.tasks("failed")
    service.rejections = {}

    retried = match.retry(first.id)
    others = match.retry_failed()

    assert (retried.state, others.retried, others.left) == ("succeeded", 1, {})
    with pytest.raises(Conflict) as raised:
        match.cancel(first.id)
    assert raised.value.code == "not_pending"


def test_retries_of_all_failed_tasks_follow_the_cursor(match: Match, service: FakeMatch) -> None:
    pages = {
        None: ok([{"retried": 2, "left": {"expired": 1}}], status=202, cursor="next"),
        "next": ok([{"retried": 1, "left": {"expired": 2, "not_failed": 1}}], status=202, cursor=None),
    }
    service.faults.append(lambda call: pages[call.params.get("cursor")])

    retried = match.retry_failed(code="timeout")

    assert (retried.retried, retried.left) == (3, {"expired": 3, "not_failed": 1})
    assert [(call.method, call.params["code"]) for call in service.calls] == [("POST", "timeout")] * 2


def test_readiness_reports_an_outage(service: FakeMatch) -> None:
    service.fail_once("/readyz", failure(503, "not_ready", "searches are unavailable"))

    with Match(service.url) as match:
        first, second = match.readiness(), match.readiness()

    assert (first.is_ready, first.errors) == (False, ("searches are unavailable",))
    assert second.is_ready


def test_all_images_of_a_call_are_one_batch(match: Match) -> None:
    outcomes = list(match.add_many([*files(2), *urls(MAX_LINES + 1)]))

    [batch_id] = {outcome.batch for outcome in outcomes}
    assert batch_id is not None
    assert match.batch(batch_id).total == MAX_LINES + 3
    assert [batch.id for batch in match.batches()] == [batch_id]


@pytest.mark.parametrize("images", [files(3), urls(3)], ids=["files", "urls"])
def test_many_are_added_to_a_collection(match: Match, service: FakeMatch, images: list[NewImage]) -> None:
    outcomes = list(match.add_many(images, collection="shop"))

    assert [(outcome.status, outcome.code) for outcome in outcomes] == [("ok", None)] * 3
    assert {task["collection"] for task in service.tasks.values()} == {"shop"}
    assert [batch.total for batch in match.batches(collection="shop")] == [3]
    assert list(match.batches()) == []


def test_a_batch_of_another_collection_is_a_conflict(match: Match) -> None:
    list(match.add_many(urls(1), collection="shop", batch="import"))

    with pytest.raises(Conflict):
        list(match.add_many(urls(1), batch="import"))


def test_a_batch_is_followed_to_its_end(match: Match, service: FakeMatch) -> None:
    service.is_working = False
    service.rejections["1"] = "http_not_found"
    list(match.add_many(urls(3), batch="import"))
    follower = match.follow("import", every_s=0)
    first = next(follower)
    service.finish_tasks()

    last = list(follower)[-1]

    assert (first.has_ended, first.pending, first.seconds_left) == (False, 3, 1.5)
    assert (last.has_ended, last.succeeded, last.failures) == (True, 2, {"http_not_found": 1})
    assert match.wait(last) == last


def test_a_wait_for_a_batch_ends(match: Match, service: FakeMatch) -> None:
    service.is_working = False
    list(match.add_many(urls(1), batch="import"))

    with pytest.raises(TaskRunning, match="batch import is still running"):
        match.wait(match.batch("import"), timeout_s=0)


def test_a_batch_is_cancelled(match: Match, service: FakeMatch) -> None:
    service.is_working = False
    list(match.add_many(urls(2), batch="import"))

    cancelled = match.cancel_batch("import")

    assert (cancelled.state, cancelled.cancelled) == ("cancelled", 2)
    with pytest.raises(Conflict):
        list(match.add_many(urls(1), batch="import"))
    with pytest.raises(NotFound):
        match.batch("unknown")


def test_tasks_are_listed_by_batch_and_ids(match: Match) -> None:
    outcomes = [*match.add_many(urls(150), batch="import"), *match.add_many(files(1), batch="other")]
    ids = [outcome.task.id for outcome in outcomes if outcome.task is not None]

    of_batch = list(match.tasks(batch="import", state="succeeded"))
    by_ids = list(match.tasks(ids=[*ids, "unknown"]))

    assert [task.id for task in of_batch] == ids[:150]
    assert [task.id for task in by_ids] == ids


def test_a_summary_is_one_line() -> None:
    failures = {"http_not_found": 41, "timeout": 21}
    batch = Batch(id="b", state="running", total=2000, succeeded=1850, failed=62, failures=failures)

    summary = replace(batch, rate_per_s=140.0, seconds_left=1).summary

    assert summary == "1,850 of 2,000 done, 62 failed: 41 http_not_found, 21 timeout, 140/s, 1 s left"


def test_webhook_of_a_batch_has_the_batch() -> None:
    body = b'{"type": "batch.ended", "batch": {"id": "b", "state": "ended", "total": 2}}'
    headers = signed_headers([SECRET], id_="msg_1", timestamp=1_000, body=body)

    event = verify(body, headers, SECRET, now=1_100)

    assert event.batch is not None
    assert (event.type, event.tasks, event.batch.total) == ("batch.ended", (), 2)


def test_webhook_of_the_service_is_verified() -> None:
    body = b'{"type": "tasks.ended", "tasks": [{"id": "1", "state": "succeeded", "filepath": "cat"}]}'
    headers = signed_headers([SECRET], id_="msg_1", timestamp=1_000, body=body)

    event = verify(body, headers, SECRET, now=1_100)

    assert (event.id, event.type, [task.filepath for task in event.tasks]) == ("msg_1", "tasks.ended", ["cat"])


@pytest.mark.parametrize(
    ("body", "now", "secret"),
    [(b"{} ", 1_000, SECRET), (b"{}", 2_000, SECRET), (b"{}", 1_000, "whsec_" + "QQ==" * 8)],
    ids=["changed", "old", "another secret"],
)
def test_invalid_webhook_is_refused(body: bytes, now: float, secret: str) -> None:
    headers = signed_headers([SECRET], id_="msg_1", timestamp=1_000, body=b"{}")

    with pytest.raises((InvalidWebhook, ValueError)):
        verify(body, headers, secret, now=now)


def test_proxies_are_not_used_for_this_machine(service: FakeMatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")

    with Match(service.url) as match:
        assert match.count() == 0
    assert requests.utils.getproxies()["http"] == "http://192.0.2.1:9"


def stored(service: FakeMatch, *names: str) -> None:
    for name in names:
        service.images[name] = {"filepath": name, "metadata": None}
        service.data[name] = name[:1].encode()


def test_many_searches_have_an_outcome_each(match: Match, service: FakeMatch) -> None:
    stored(service, "a1", "a2", "b1")
    queries = ["a1", SearchQuery(filepath="b1", limit=1, collection="default"), "unknown"]

    outcomes = list(match.search_many(queries))

    assert [[one.filepath for one in outcome.matches] for outcome in outcomes] == [["a1", "a2"], ["b1"], []]
    assert [(outcome.number, outcome.status, outcome.code) for outcome in outcomes] == [
        (0, "ok", None),
        (1, "ok", None),
        (2, "fail", "unknown_filepath"),
    ]
    [call] = service.calls_to("/search/batch")
    assert call.lines[:2] == [{"filepath": "a1"}, {"filepath": "b1", "limit": 1, "collection": "default"}]


def test_postponed_searches_are_sent_again(match: Match, service: FakeMatch) -> None:
    stored(service, "a", "b", "c")
    failed = {"code": "overloaded", "retry_after": 0}
    service.failed_lines["b"] = failed
    service.faults.append(lambda _: service.failed_lines.clear() if len(service.calls) == 3 else None)

    outcomes = list(match.search_many("abc"))

    assert [(outcome.filepath, outcome.status) for outcome in outcomes] == [("a", "ok"), ("b", "ok"), ("c", "ok")]
    sent = [[line["filepath"] for line in call.lines if line] for call in service.calls_to("/search/batch")]
    assert sent == [["a", "b", "c"], ["b"], ["b"]]


def test_searches_are_sent_in_smaller_batches(match: Match, service: FakeMatch) -> None:
    stored(service, *"abcde")
    service.max_search_lines = 2

    outcomes = list(match.search_many("abcde"))

    assert [outcome.matches[0].filepath for outcome in outcomes] == [*"abcde"]


def test_many_searches_read_their_queries_in_parts(match: Match, service: FakeMatch) -> None:
    stored(service, "a")
    read: list[int] = []

    first = next(match.search_many("a" for _ in map(read.append, range(10_000))))

    assert first.number == 0
    assert len(read) <= SEARCH_LINES + 1


def test_usage_is_read(match: Match, service: FakeMatch) -> None:
    service.usage = [{"key": None, "collection": "a", "requests": 3, "adds": 2, "searches": 1, "bytes": 9}]

    [use] = match.usage(days=7)

    assert (use.key, use.collection, use.requests, use.adds, use.searches, use.bytes) == (None, "a", 3, 2, 1, 9)
    assert service.calls_to("/usage")[0].params == {"days": "7"}
