"""The web page over HTTP and in Chromium, with a store in memory."""

import hashlib
import html
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient
from PIL import Image
from playwright.sync_api import Browser, Page
from redis import Redis

from api import web
from api.access.keys import Keyring, Scope
from api.new_key import table
from api.web import duplicates
from api.web.static import FILES, FOLDER
from common.config import Settings
from common.decoding.child import signed
from common.images.decode import DEFAULT_LIMITS, decode
from common.queue.ledger import Ledger
from common.queue.tasks import State
from common.store.sqlite import SqliteThumbnails
from support.browsers import AXE, choose, chromium, opened, serving_app
from support.images import gradient, noise, upload
from support.records import record
from support.stores import MemoryStore
from support.tasks import fail
from support.waiting import wait_until

KEY = "the read key"
STORED = ["albums/0.png", "albums/1.png", "albums/2.png"]
FIRST_VIEW_BYTES = 100_000
# Above the numbers of all requests.
NEWEST = 10**17
# The parameters of pages that need some.
NAMED = {"/web/image": {"filepath": "albums/0.png"}}
STATIC = {f"/web/static/{name}" for name in FILES}


def store_image(
    store: MemoryStore, filepath: str, data: bytes, *, seq: int = 0, collection: str = "default", **metadata: Any
) -> None:
    signatures = signed(decode(data, DEFAULT_LIMITS)).signatures
    one = record(filepath, seq or len(store.kept) + 1, *signatures, metadata=metadata)
    store.put([replace(one, collection=collection, added=0)])


@pytest.fixture
def stored(memory_store: MemoryStore) -> MemoryStore:
    for number, filepath in enumerate(STORED):
        store_image(memory_store, filepath, noise(number), album="cats" if number else "dogs")
    return memory_store


@pytest.fixture
def locked(make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path) -> FlaskClient:
    file = tmp_path / "keys.toml"
    file.write_text(table("reader", [Scope.READ], KEY))
    return make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))


@pytest.fixture(scope="module")
def browser(give_up: Callable[[str], NoReturn]) -> Iterator[Browser]:
    with chromium(give_up) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, client: FlaskClient, stored: MemoryStore) -> Iterator[Page]:
    assert stored.count() == 3
    with serving_app(client.application) as origin, opened(browser, origin) as page:
        yield page


def fields(**values: Any) -> dict[str, Any]:
    """Return the fields that a browser sends: also those that the reader left blank."""
    return {"url": "", "all_orientations": "", "min_score": "", "limit": "100", "where": "", **values}


def test_form_finds_an_image(client: FlaskClient, stored: MemoryStore) -> None:
    answer = client.post("/web/search", data=fields(image=upload(noise(1))))

    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert "1 match among 3 images" in answer.text
    assert "albums/1.png" in answer.text
    assert stored.count() == 3


def test_form_filters_by_metadata(client: FlaskClient, stored: MemoryStore) -> None:
    answer = client.post("/web/search", data=fields(image=upload(noise(1)), where="album=dogs"))

    assert "No match among 1 image<" in answer.text
    assert "album=dogs" in answer.text
    assert stored.count() == 3


def test_link_finds_images_like_a_stored_one(client: FlaskClient, stored: MemoryStore) -> None:
    store_image(stored, "copies/2.png", noise(2))

    answer = client.get("/web/search?filepath=albums/2.png")

    assert "1 other match among 4 images" in answer.text
    assert html.unescape(answer.text).count("compare?filepath1=albums%2F2.png&filepath2=copies%2F2.png") == 1


def test_address_starts_no_download(client: FlaskClient) -> None:
    answer = client.get("/web/search?url=http://192.0.2.1/cat.jpg")

    assert answer.status_code == 400
    assert "filepath is required" in answer.text


def test_preview_shows_what_a_browser_cannot(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path
) -> None:
    client = make_client(real_redis, thumbnails=SqliteThumbnails(tmp_path / "thumbnails"))

    answer = client.post("/web/preview", data={"image": upload(gradient(size=(640, 480)))})

    assert (answer.status_code, answer.mimetype) == (200, "image/webp")
    assert answer.headers["X-Image-Size"] == "640x480"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert Image.open(io.BytesIO(answer.data)).size == (256, 192)


def test_form_compares_two_images(client: FlaskClient) -> None:
    answer = client.post("/web/compare", data={"image1": upload(noise(1)), "image2": upload(noise(1)), "url1": ""})

    assert "<b>100.0</b>" in answer.text


def test_collection_lists_the_newest_first(client: FlaskClient, stored: MemoryStore) -> None:
    answer = client.get("/web/collection")

    assert re.findall(r'data-filepath="(.+?)"', answer.text) == STORED[::-1]
    assert stored.count() == 3
    assert "3 images" in answer.text


def test_collection_is_filtered_by_metadata(client: FlaskClient, stored: MemoryStore) -> None:
    answer = client.get("/web/collection?where=album%3Ddogs&page=1")

    assert re.findall(r'data-filepath="(.+?)"', answer.text) == ["albums/0.png"]
    assert stored.count() == 3


def test_collection_is_filtered_by_prefix(client: FlaskClient, stored: MemoryStore) -> None:
    for number in range(61):
        store_image(stored, f"100%/{number}", noise(9))

    first = client.get("/web/collection?filepath_prefix=100%25%2F&where=")
    second = client.get("/web/collection?filepath_prefix=100%25%2F&page=2")
    absent = client.get("/web/collection?filepath_prefix=nowhere")

    assert re.findall(r'data-filepath="(.+?)"', second.text) == ["100%/0"]
    assert len(re.findall(r'data-filepath="(.+?)"', first.text)) == 60
    assert 'name="filepath_prefix" value="100%/"' in first.text
    assert "/web/collection?page=2&amp;filepath_prefix=100%25%2F" in first.text
    assert "No image here" in absent.text


def test_page_beyond_the_last_is_empty(client: FlaskClient, stored: MemoryStore) -> None:
    answer = client.get("/web/collection?page=9")

    assert "No image here" in answer.text
    assert stored.count() == 3


def test_image_page_shows_the_record(client: FlaskClient, stored: MemoryStore) -> None:
    answer = client.get("/web/image?filepath=albums/0.png")

    assert " 480 pixels" in answer.text
    assert "dogs" in answer.text
    assert stored.count() == 3


def test_delete_form_deletes_the_image(client: FlaskClient, stored: MemoryStore) -> None:
    answer = client.post("/web/delete", data={"filepath": "albums/0.png"})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/web/collection")
    assert stored.count() == 2


def test_status_page_shows_each_dependency(client: FlaskClient, stored: MemoryStore) -> None:
    answer = client.get("/web/status")

    assert "Everything works" in answer.text
    assert "<dd>3</dd>" in answer.text
    assert "<dd>1.5 MB</dd>" in answer.text
    assert stored.count() == 3


def test_status_page_answers_without_a_store(client: FlaskClient, memory_store: MemoryStore) -> None:
    memory_store.away = True

    answer = client.get("/web/status")

    assert answer.status_code == 200
    assert "Searches are unavailable" in answer.text
    assert "unknown" in answer.text


@pytest.fixture
def failed(client: FlaskClient, real_redis: Redis) -> list[str]:
    """The ids of two failed tasks."""
    assert client.get("/ping").status_code == 200
    ledger = Ledger(real_redis, max_open=10, finished_keep_s=60, failed_keep_s=60)
    codes = {"broken.png": "broken_image", "slow.png": "timeout"}
    tasks = [client.post("/add", data={"image": upload(), "filepath": name}).json["task"]["id"] for name in codes]
    claims = [ledger.begin(task) for task in tasks]
    ledger.finish(
        [
            claim.result(State.FAILED, code=code, error="why")
            for claim, code in zip(claims, codes.values(), strict=True)
            if claim
        ]
    )
    return tasks


def test_queue_page_lists_failed_tasks_by_code(client: FlaskClient, failed: list[str]) -> None:
    everything, timeouts = client.get("/web/queue"), client.get("/web/queue?code=timeout")

    assert "broken.png" in everything.text
    assert "/web/queue?code=broken_image" in everything.text
    assert "slow.png" in timeouts.text
    assert "broken.png" not in timeouts.text
    assert len(failed) == 2


def test_failed_task_is_retried_by_a_form(client: FlaskClient, failed: list[str]) -> None:
    answer = client.post(f"/web/queue/{failed[0]}/retry")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/web/queue")
    states = [client.get(f"/tasks/{task}").json["result"][0]["state"] for task in failed]
    assert states == ["pending", "failed"]


def test_failed_tasks_are_retried_by_code(client: FlaskClient, failed: list[str]) -> None:
    answer = client.post("/web/queue/retry", data={"code": "timeout"})

    assert answer.status_code == 303
    states = [client.get(f"/tasks/{task}").json["result"][0]["state"] for task in failed]
    assert states == ["failed", "pending"]


@pytest.fixture
def batch(client: FlaskClient, real_redis: Redis) -> str:
    """The id of a batch with a failed task and one that waits."""
    form = {f"filepaths[{number}]": f"batch-{number}.png" for number in range(2)}
    files = {f"images[{number}]": upload() for number in range(2)}
    sent = client.post("/add", data=form | files, headers={"X-Batch-ID": "import-1"}).json["result"]
    fail(Ledger(real_redis, max_open=10, finished_keep_s=60, failed_keep_s=60), sent[0]["task"]["id"])
    return "import-1"


def progress(client: FlaskClient, batch: str) -> dict[str, Any]:
    [shown] = client.get(f"/batches/{batch}").json["result"]
    return shown


def test_queue_page_shows_batches(client: FlaskClient, failed: list[str], batch: str) -> None:
    everything, of_batch = client.get("/web/queue"), client.get(f"/web/queue?batch={batch}&code=timeout")

    assert "0 of 2 done" in everything.text
    assert f'href="/web/queue?batch={batch}&amp;code=timeout">1 timeout</a>' in everything.text
    assert "slow.png" in everything.text
    assert "batch-0.png" in of_batch.text
    assert "slow.png" not in of_batch.text
    assert len(failed) == 2


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_pause_keeps_the_chosen_collection(client: FlaskClient, action: str) -> None:
    assert client.put("/collections/shop").status_code < 300

    answer = client.post(f"/web/queue/{action}", data={"collection": "shop"})
    page = client.get(answer.headers["Location"])

    assert (answer.status_code, answer.headers["Location"]) == (303, "/web/queue?collection=shop")
    assert ("The queue is paused" in page.text) == (action == "pause")
    assert '<input type="hidden" name="collection" value="shop">' in page.text


def test_limited_key_sees_no_pause_and_no_disk(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    limited = table("shop", [Scope.ADMIN, Scope.WRITE, Scope.READ], KEY) + 'collections = ["shop", "default"]\n'
    file.write_text(limited + table("operator", [Scope.ADMIN, Scope.READ], "the key of all"))
    client = make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))

    pages = [
        client.get(path, headers={"Authorization": f"Bearer {key}"}).text
        for key in (KEY, "the key of all")
        for path in ("/web/queue", "/web/status")
    ]

    assert ["/web/queue/pause" in page for page in pages] == [False, False, True, False]
    assert ["Disk used" in page for page in pages] == [False, False, False, True]


def test_batch_is_cancelled_by_a_form(client: FlaskClient, batch: str) -> None:
    answer = client.post(f"/web/batches/{batch}/cancel")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/web/queue")
    assert progress(client, batch)["cancelled"] == 1


def test_failed_tasks_of_a_batch_are_retried(client: FlaskClient, failed: list[str], batch: str) -> None:
    answer = client.post(f"/web/batches/{batch}/retry")

    assert answer.status_code == 303
    assert (progress(client, batch)["pending"], progress(client, batch)["failed"]) == (2, 0)
    states = [client.get(f"/tasks/{task}").json["result"][0]["state"] for task in failed]
    assert states == ["failed", "failed"]


def test_pages_show_one_collection(client: FlaskClient, stored: MemoryStore) -> None:
    store_image(stored, "shirt.png", noise(7), collection="shop")

    shop, default = client.get("/web/collection?collection=shop"), client.get("/web/collection")
    answer = client.post("/web/search", data=fields(image=upload(noise(7)), collection="shop"))

    assert re.findall(r'data-filepath="(.+?)"', shop.text) == ["shirt.png"]
    assert "shirt.png" not in default.text
    assert "1 match among 1 image<" in answer.text
    assert "/web/image?collection=shop&amp;filepath=shirt.png" in answer.text


def test_key_of_a_collection_gets_links_to_it(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path, stored: MemoryStore
) -> None:
    store_image(stored, "shirt.png", noise(7), collection="shop")
    file = tmp_path / "keys.toml"
    file.write_text(table("shop", [Scope.READ], KEY) + 'collections = ["shop"]\n')
    client = make_client(real_redis, keyring=Keyring(file), settings=Settings(api_keys_file=file))

    answer = client.get("/", headers={"Authorization": f"Bearer {KEY}"})

    assert answer.status_code == 404
    assert '<a href="/?collection=shop">shop</a>' in answer.text


def test_duplicates_are_grouped_once(client: FlaskClient, stored: MemoryStore) -> None:
    store_image(stored, "copies/1.png", noise(1))

    answer = client.get("/web/duplicates")

    assert "1 group, 4 of 4 images searched" in answer.text
    assert re.findall(r'data-filepath="(.+?)"', answer.text) == ["copies/1.png", "albums/1.png"]


def test_verdict_is_kept_in_metadata(client: FlaskClient, stored: MemoryStore) -> None:
    store_image(stored, "copies/1.png", noise(1))
    group = {"filepaths[0]": "copies/1.png", "filepaths[1]": "albums/1.png"}

    answer = client.post("/web/duplicates/distinct", data=group)

    images = client.get("/images?filepath_prefix=").json["result"]
    metadata = {image["filepath"]: image["metadata"] for image in images}
    assert (answer.status_code, answer.headers["Location"]) == (303, "/web/duplicates")
    assert metadata["copies/1.png"] == {"not_duplicate_of": {"albums/1.png": True}}
    assert metadata["albums/1.png"] == {"album": "cats", "not_duplicate_of": {"copies/1.png": True}}
    assert "0 groups, 4 of 4 images searched" in client.get("/web/duplicates").text


def test_replaced_image_loses_the_verdict(client: FlaskClient, stored: MemoryStore) -> None:
    store_image(stored, "copies/1.png", noise(1))
    client.post("/web/duplicates/distinct", data={"filepaths[0]": "copies/1.png", "filepaths[1]": "albums/1.png"})

    store_image(stored, "copies/1.png", noise(1), seq=NEWEST)

    assert "1 group, 4 of 4 images searched" in client.get("/web/duplicates").text


def test_image_of_an_earlier_page_is_grouped(
    client: FlaskClient, stored: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_image(stored, "copies/0.png", noise(0))
    monkeypatch.setattr(duplicates, "PAGE_IMAGES", 2)

    first, last = client.get("/web/duplicates"), client.get("/web/duplicates?page=2")

    assert re.findall(r'data-filepath="(.+?)"', first.text) == ["copies/0.png", "albums/0.png"]
    assert re.findall(r'data-filepath="(.+?)"', last.text) == ["albums/0.png", "copies/0.png"]


def test_failures_are_pages(client: FlaskClient) -> None:
    sent = [{}, {"image": (io.BytesIO(b"nothing"), "cat.png")}, {"filepath": "nowhere"}, {"url": "x", "where": "album"}]

    answers = [client.post("/web/search", data=fields(**data)) for data in sent]

    assert [answer.status_code for answer in answers] == [400, 422, 404, 400]
    assert {answer.mimetype for answer in answers} == {"text/html"}
    assert "image, url or filepath is required" in answers[0].text
    assert "where must be key=value" in answers[3].text


def test_names_and_metadata_are_escaped(client: FlaskClient, memory_store: MemoryStore) -> None:
    store_image(memory_store, "<b>.png", noise(1), note="<script>")

    answer = client.get("/web/search?filepath=%3Cb%3E.png")

    assert "&lt;b&gt;.png" in answer.text
    assert "<b>.png" not in answer.text
    assert "<script>" not in answer.text


def test_form_of_another_site_is_rejected(client: FlaskClient) -> None:
    headers = {"Origin": "https://other.example.org"}

    answer = client.post("/web/search", data=fields(image=upload(noise(1))), headers=headers)

    assert (answer.status_code, answer.mimetype) == (403, "text/html")
    assert "another site" in answer.text


def test_policy_allows_only_this_host(client: FlaskClient) -> None:
    headers = client.get("/").headers

    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' blob:",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["Referrer-Policy"] == "same-origin"


def test_originals_are_shown_from_their_host(
    make_client: Callable[..., FlaskClient], real_redis: Redis, stored: MemoryStore
) -> None:
    template = "https://images.example.org/of/{filepath}?size=small"
    client = make_client(real_redis, settings=Settings(image_url_template=template))

    answer = client.get("/web/search?filepath=albums/1.png")

    assert 'src="https://images.example.org/of/albums/1.png?size=small"' in answer.text
    assert "img-src 'self' blob: https://images.example.org;" in answer.headers["Content-Security-Policy"]
    assert stored.count() == 3


def test_pages_show_nothing_stored_without_a_key(locked: FlaskClient, stored: MemoryStore) -> None:
    pages = [each.path for each in web.ENDPOINTS if "GET" in each.methods and each.path not in STATIC]

    answers = [locked.get(path, query_string=NAMED.get(path)) for path in pages]

    assert {answer.status_code for answer in answers} == {200}
    assert all("This service needs an API key" in answer.text for answer in answers)
    assert not any(filepath in answer.text for answer in answers for filepath in STORED)
    assert stored.count() == 3


def test_forms_without_a_key_are_rejected(locked: FlaskClient) -> None:
    forms = [each.path.replace("<id>", "1") for each in web.ENDPOINTS if "POST" in each.methods]

    answers = [locked.post(path) for path in forms]

    assert {(answer.status_code, answer.mimetype) for answer in answers} == {(401, "text/html")}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Bearer realm="match"'}


@pytest.mark.parametrize("folder", [FOLDER / "simple", AXE.parent], ids=lambda folder: folder.name)
def test_vendored_files_are_the_published_ones(folder: Path) -> None:
    expected = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())

    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in expected}

    assert digests == expected
    assert {"SHA256SUMS", "README.md", *expected} == {path.name for path in folder.iterdir()}


def test_first_view_is_small(client: FlaskClient) -> None:
    sizes = {path: len(client.get(path).data) for path in ("/", *STATIC)}

    assert sum(sizes.values()) < FIRST_VIEW_BYTES, sizes
    assert not re.findall(r'(?:href|src)="(?![/#])', client.get("/").text)


def test_chosen_file_is_searched_at_once(page: Page) -> None:
    page.goto("/")

    choose(page, noise(1))

    page.wait_for_selector(".card[data-filepath='albums/1.png']")
    assert page.is_visible(".preview")
    assert page.locator(".card").count() == 1


def test_undo_keeps_the_deleted_images(page: Page, stored: MemoryStore) -> None:
    page.goto("/web/collection")
    page.get_by_label("Select albums/1.png").check()
    page.click("text=Delete 1")
    before = page.locator(".tile:visible").count()

    page.click("text=Undo")

    assert before == 2
    assert page.locator(".tile:visible").count() == 3
    assert stored.count() == 3


def test_deletion_is_sent_when_the_page_is_left(page: Page, stored: MemoryStore) -> None:
    page.goto("/web/collection")
    page.get_by_label("Select albums/1.png").check()
    page.get_by_label("Select albums/2.png").check()
    page.click("text=Delete 2")

    page.goto("/")

    wait_until(lambda: stored.count() == 1, "two images are deleted")


def test_queue_page_plots_backlog_and_rate(page: Page, batch: str) -> None:
    page.goto("/web/queue")

    page.wait_for_selector("[data-plot=open] polyline[points*=' ']", state="attached")

    labels = [page.locator(f"[data-plot={name}] svg").get_attribute("aria-label") for name in ("open", "rate")]
    assert labels[0] == "Open tasks in the last four minutes: now 1, highest 1"
    assert str(labels[1]).startswith("Tasks a second in the last four minutes: now ")
    assert batch == "import-1"


def test_duplicates_of_all_pages_are_shown(page: Page, stored: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store_image(stored, "copies/0.png", noise(0))
    monkeypatch.setattr(duplicates, "PAGE_IMAGES", 1)
    page.goto("/web/duplicates")

    page.wait_for_selector("text=1 group, 4 of 4 images searched")

    assert page.locator(".group:visible").count() == 1
    assert page.locator(".group .card").count() == 2


def test_verdict_can_be_undone(page: Page, stored: MemoryStore) -> None:
    store_image(stored, "copies/1.png", noise(1))
    page.goto("/web/duplicates")
    page.click("text=Not duplicates")
    page.locator(".group").wait_for(state="hidden")

    page.click("text=Undo")

    page.locator(".group").wait_for(state="visible")
    assert all("not_duplicate_of" not in (each.metadata or {}) for each in stored.records(STORED).values())


def test_other_images_of_a_group_are_deleted(page: Page, stored: MemoryStore) -> None:
    store_image(stored, "copies/1.png", noise(1))
    page.goto("/web/duplicates")
    page.get_by_role("button", name="Keep only this: copies/1.png").click()

    page.goto("/")

    wait_until(lambda: stored.count() == 3, "one image is deleted")
    assert not stored.records(["albums/1.png"])


def test_queue_page_follows_a_pause_by_others(page: Page, client: FlaskClient) -> None:
    page.goto("/web/queue")
    before = page.get_by_role("button", name="Pause").count()
    client.post("/queue/pause")

    page.get_by_role("button", name="Resume").wait_for()

    assert before == 1
    assert page.locator("#pause [role=alert]").inner_text() == "The queue is paused: workers begin no task."


def test_key_opens_the_page(browser: Browser, locked: FlaskClient, stored: MemoryStore) -> None:
    with serving_app(locked.application) as origin, opened(browser, origin) as page:
        page.goto("/")
        page.fill("input[name=key]", KEY)

        page.click("text=Open")

        page.wait_for_selector("[data-search]")
        choose(page, noise(1))
        page.wait_for_selector(".card[data-filepath='albums/1.png']")
        page.goto("/web/compare")
        page.wait_for_selector("[action='/web/compare']")
    assert stored.count() == 3


def test_page_works_without_javascript(browser: Browser, client: FlaskClient, stored: MemoryStore) -> None:
    with serving_app(client.application) as origin, opened(browser, origin, java_script_enabled=False) as page:
        page.goto("/")
        choose(page, noise(1))

        page.get_by_role("button", name="Search", exact=True).click()

        page.wait_for_selector(".card[data-filepath='albums/1.png']")
    assert stored.count() == 3
