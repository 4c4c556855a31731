"""The web page with the whole service behind it, in Chromium, with real photographs.

`MATCH_SCREENSHOTS=docs/images` also writes the screenshots of the documentation there.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from api.access.keys import Scope
from api.new_key import table
from common.store.sqlite import SqliteStore
from dev.redis_server import RedisServer
from support.browsers import WITHIN_MS, accessibility_violations, choose, chromium, drop, opened
from support.http_servers import serving
from support.image_server import ImageServer
from support.images import encode, noise
from support.records import record
from support.service import Service
from support.waiting import wait_until

expect.set_options(timeout=WITHIN_MS)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "images"
IMAGES = len([*EXAMPLES.glob("*.jpg")])
SCREENSHOTS = os.environ.get("MATCH_SCREENSHOTS")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
PAGES = (
    "/",
    "/web/compare",
    "/web/collection",
    "/web/duplicates?min_score=1",
    "/web/queue",
    "/web/status",
    "/web/image?filepath=photos/chelsea.jpg",
)
STORED_PAGE = "/web/search?filepath=photos/chelsea.jpg"
KEY = "the key of a reader"
# The corners of the photograph in `screenshot_of`.
PART_OF_SCREENSHOT = (280, 110, 840, 530)
MEAN_LEVEL = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.reduce((sum, level, index) => sum + (index % 4 < 3 ? level : 0), 0) / (data.length * 3 / 4);
}"""
LEVELS = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
WAITING = 2000
MATCHES = 1000


@pytest.fixture(scope="module")
def browser(give_up: Callable[[str], NoReturn]) -> Iterator[Browser]:
    with chromium(give_up) as browser:
        yield browser


class Site:
    """A running service with an embedded store, and its pages."""

    def __init__(self, service: Service, origin: str, home: Path) -> None:
        self.service = service
        self.origin = origin
        self.home = home

    def add(self, filepath: str, data: bytes, **fields: str) -> None:
        form = {"filepath": filepath, "wait": "60", **fields}
        requests.post(f"{self.origin}/add", data=form, files={"image": data}, timeout=120).raise_for_status()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    with ExitStack() as running:

        def start(*, workers: int = 1, **settings: str) -> Site:
            redis = running.enter_context(RedisServer(tmp_path / "redis"))
            environment = {
                "REDIS_URL": redis.url,
                "MATCH_STORE_URL": f"sqlite:///{tmp_path / 'match.db'}",
                "MATCH_THUMBNAILS_PX": "256",
                "WORKER_COUNT": "1",
                **settings,
            }
            service = running.enter_context(Service(tmp_path, environment))
            for _ in range(workers):
                service.start_worker()
            return Site(service, service.start_api(), tmp_path)

        yield start


@pytest.fixture
def site(start: Callable[..., Site]) -> Site:
    """The service with the example images."""
    site = start()
    for path in sorted(EXAMPLES.glob("*.jpg")):
        site.add(f"photos/{path.name}", path.read_bytes(), metadata='{"album": "examples"}')
    return site


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the example images, a broken one and another file."""
    folder = tmp_path / "holiday"
    shutil.copytree(EXAMPLES, folder, ignore=lambda _, names: [name for name in names if not name.endswith(".jpg")])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with opened(browser, site.origin, **DESKTOP) as page:
        yield page


def screenshot_of(name: str) -> bytes:
    """Return a screenshot of an application that shows a part of an example image."""
    with Image.open(EXAMPLES / name) as photo:
        width, height = photo.size
        part = photo.convert("RGB").crop((width // 5, height // 6, width * 9 // 10, height * 5 // 6)).resize((560, 420))
    screen = Image.new("RGB", (900, 620), (236, 238, 244))
    screen.paste((40, 46, 60), (0, 0, 900, 48))
    screen.paste(part, PART_OF_SCREENSHOT[:2])
    return encode(screen)


def attempts(site: Site) -> list[int]:
    """Return how often each failed task was started."""
    tasks = requests.get(f"{site.origin}/tasks?state=failed", timeout=60).json()["result"]
    return [task["attempts"] for task in tasks]


def metadata(site: Site, filepath: str) -> dict[str, Any]:
    """Return the metadata of a stored image."""
    [image] = requests.get(f"{site.origin}/images", params={"filepath": filepath}, timeout=60).json()["result"]
    return image["metadata"] or {}


def card(page: Page, filepath: str) -> Any:
    return page.locator(f".card[data-filepath='{filepath}']")


def keep_screenshot(page: Page, name: str) -> None:
    if SCREENSHOTS:
        # The images below the window are loaded too late for a screenshot, so it shows the window only.
        page.wait_for_load_state("networkidle")
        shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        # A third of the bytes.
        shown.quantize(256).save(Path(SCREENSHOTS) / f"web-{name}.png", optimize=True)


def progress(page: Page) -> Locator:
    return page.locator("[data-progress] output")


def test_dropped_folder_is_found_by_a_cropped_screenshot(
    browser: Browser, start: Callable[..., Site], folder: Path
) -> None:
    with opened(browser, start().origin, **DESKTOP) as page:
        page.goto("/")
        expect(page.locator("[data-search]")).to_be_hidden()
        drop(page, folder)
        expect(progress(page)).to_contain_text("Done")
        added = progress(page).inner_text()
        failures = page.locator(".failures").inner_text()

        choose(page, screenshot_of("chelsea.jpg"))

        expect(card(page, "holiday/chelsea.jpg").locator("img")).to_have_js_property("complete", value=True)
        assert page.locator(".card").count() == 1
    assert added == f"Done: {IMAGES} of {IMAGES + 1} images stored, 1 failed, 1 other file skipped"
    assert failures.startswith("holiday/broken.jpg: ")


def test_folder_that_is_dropped_again_continues(browser: Browser, start: Callable[..., Site], folder: Path) -> None:
    site = start()
    (folder / "broken.jpg").unlink()
    for name in ("moose.jpg", "brick.jpg"):
        site.add(f"holiday/{name}", (EXAMPLES / name).read_bytes())
    site.add("holiday/camera.jpg", (EXAMPLES / "rocket.jpg").read_bytes())
    with opened(browser, site.origin, **DESKTOP) as page:
        page.goto("/web/collection")

        drop(page, folder)

        expect(progress(page)).to_contain_text("Done")
        others = f"{IMAGES - 2} of {IMAGES} images stored, 2 were stored already, 1 other file skipped"
        assert progress(page).inner_text() == f"Done: {others}"
        expect(page.locator(".tile")).to_have_count(IMAGES)
    batches = requests.get(f"{site.origin}/batches", timeout=60).json()["result"]
    assert [batch["succeeded"] for batch in batches] == [IMAGES - 2]


def test_dropped_image_is_searched(page: Page) -> None:
    page.goto("/")

    drop(page, EXAMPLES / "rocket.jpg")

    expect(card(page, "photos/rocket.jpg")).to_be_visible()


def test_image_by_url_is_shown_and_compared(browser: Browser, start: Callable[..., Site]) -> None:
    with serving(ImageServer()) as images:
        site = start(MATCH_FETCH_ALLOW=images.url.removeprefix("http://"))
        site.add("one.jpg", noise(1, kind="JPEG"))
        with opened(browser, site.origin, **DESKTOP) as page:
            page.goto("/")
            page.fill("[name=url]", f"{images.url}/1")
            page.keyboard.press("Enter")
            card(page, "one.jpg").wait_for()
            expect(page.locator(".preview")).to_have_js_property("naturalWidth", 120)

            page.get_by_role("button", name="View").click()

            expect(page.locator("#viewer")).to_be_visible()


def test_image_that_browsers_cannot_show_is_compared(page: Page) -> None:
    page.goto("/")
    choose(page, encode(Image.open(EXAMPLES / "coffee.jpg"), "TIFF"))
    card(page, "photos/coffee.jpg").wait_for()
    expect(page.locator(".preview")).to_have_js_property("naturalWidth", 256)

    page.get_by_role("button", name="View").click()

    expect(page.locator("#viewer")).to_be_visible()


def test_shared_part_is_outlined_in_the_query(page: Page) -> None:
    page.goto("/")

    choose(page, screenshot_of("chelsea.jpg"))

    part = page.locator("[data-outlined] .part")
    box = part.evaluate(
        "part => { const { x, y, width, height } = part.getBBox(); return [x, y, x + width, y + height]; }"
    )
    assert box == pytest.approx(PART_OF_SCREENSHOT, abs=40)
    card(page, "photos/chelsea.jpg").hover()
    expect(page.locator("[data-outlined] .active")).to_have_count(1)
    keep_screenshot(page, "search")


def test_viewer_shows_that_a_copy_differs_little(page: Page) -> None:
    page.goto("/")
    with Image.open(EXAMPLES / "coffee.jpg") as photo:
        mirrored = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).convert("RGB")
    choose(page, encode(mirrored, "JPEG", quality=60))
    card(page, "photos/coffee.jpg").get_by_role("button", name="View").click()

    def brightness() -> float:
        return float(page.locator("#viewer canvas >> nth=0").evaluate(MEAN_LEVEL))

    page.check("#viewer [value=flick]")
    query = brightness()
    page.check("#viewer [value=difference]")

    assert brightness() < query / 3


def test_overlay_places_the_stored_image(page: Page) -> None:
    page.goto("/")
    with Image.open(EXAMPLES / "chelsea.jpg") as photo:
        part = photo.convert("RGB").crop((photo.width // 3, 0, photo.width, 2 * photo.height // 3))
    choose(page, encode(part))
    card(page, "photos/chelsea.jpg").get_by_role("button", name="View").click()
    page.check("#viewer [value=overlay]")
    canvas, opacity = page.locator("#viewer canvas >> nth=0"), page.get_by_role("slider", name="Stored image")

    opacity.fill("0")
    query = np.array(canvas.evaluate(LEVELS))
    opacity.fill("100")
    differing = np.abs(query - canvas.evaluate(LEVELS)).mean()

    # As a whole in the place of its part, the stored image would differ more.
    assert 0 < differing < query.mean() / 8


def test_viewer_outlines_the_shared_part(page: Page) -> None:
    page.goto("/")
    choose(page, screenshot_of("chelsea.jpg"))

    card(page, "photos/chelsea.jpg").get_by_role("button", name="View").click()

    expect(page.locator("#viewer canvas >> nth=1")).to_be_visible()
    keep_screenshot(page, "viewer")
    page.keyboard.press("f")
    expect(page.get_by_role("img", name="Stored image")).to_be_visible()
    page.keyboard.press("f")
    expect(page.get_by_role("img", name="Query")).to_be_visible()


def test_pasted_image_is_searched(page: Page) -> None:
    page.goto("/")

    page.evaluate(
        """bytes => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([new Uint8Array(bytes)], "pasted.jpg", { type: "image/jpeg" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }""",
        [*(EXAMPLES / "rocket.jpg").read_bytes()],
    )

    expect(card(page, "photos/rocket.jpg")).to_be_visible()


def test_button_pastes_an_image(page: Page) -> None:
    page.goto("/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async bytes => {
          const image = new Blob([new Uint8Array(bytes)], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": image })]);
        }""",
        [*encode(Image.open(EXAMPLES / "rocket.jpg").convert("RGB").resize((300, 200)), "PNG")],
    )

    page.get_by_role("button", name="Paste an image").click()

    expect(card(page, "photos/rocket.jpg")).to_be_visible()


def test_part_of_the_image_is_searched_by_keyboard(page: Page) -> None:
    page.goto("/")
    left, right = (Image.open(EXAMPLES / name).convert("RGB").resize((400, 400)) for name in ("moose.jpg", "brick.jpg"))
    both = Image.new("RGB", (800, 400))
    both.paste(left, (0, 0))
    both.paste(right, (400, 0))
    choose(page, encode(both))
    page.get_by_role("button", name="Search with a part").press("Enter")

    page.locator("#cropper [name=width]").fill("50")
    page.locator("[data-crop-done]").press("Enter")

    expect(card(page, "photos/moose.jpg")).to_be_visible()
    expect(card(page, "photos/brick.jpg")).to_have_count(0)


def test_search_without_matches_offers_others(page: Page) -> None:
    page.goto("/")
    page.locator("[data-search] summary").click()
    page.select_option("[name=mode]", "fast")
    choose(page, screenshot_of("chelsea.jpg"))
    expect(page.locator("#results")).to_contain_text("No match among 14 images")

    page.click("text=Search thoroughly")

    expect(card(page, "photos/chelsea.jpg")).to_be_visible()


def test_slider_hides_matches_with_a_lower_score(page: Page, site: Site) -> None:
    site.add("copies/rocket.png", encode(Image.open(EXAMPLES / "rocket.jpg").convert("L").rotate(2)))
    page.goto("/web/search?filepath=photos/rocket.jpg")
    before = page.locator(".card:visible").count()

    page.locator("[data-threshold]").focus()
    page.keyboard.press("End")

    assert before == 1
    expect(page.locator(".card:visible")).to_have_count(0)


def test_deletion_can_be_undone(page: Page, site: Site) -> None:
    page.goto("/web/collection")
    keep_screenshot(page, "collection")
    page.get_by_label("Select photos/moose.jpg").check()
    page.get_by_label("Select photos/brick.jpg").check()
    page.click("text=Delete 2")

    page.click("text=Undo")

    expect(page.locator(".tile:visible")).to_have_count(14)
    assert requests.get(f"{site.origin}/count", timeout=60).json()["result"] == [14]


def test_deletion_is_sent_after_its_time(page: Page, site: Site) -> None:
    page.goto("/web/collection")
    page.get_by_label("Select photos/moose.jpg").check()

    page.click("text=Delete 1")

    page.mouse.move(0, 0)
    expect(page.locator("#browse h2")).to_have_text("13 images")
    assert requests.get(f"{site.origin}/count", timeout=60).json()["result"] == [13]


def test_verdict_on_a_group_is_kept(page: Page, site: Site) -> None:
    site.add("copies/rocket.jpg", encode(Image.open(EXAMPLES / "rocket.jpg"), "JPEG", quality=60))
    page.goto("/web/duplicates")
    expect(page.locator(".group .card")).to_have_count(2)
    page.get_by_role("button", name="View").click()
    expect(page.locator("#viewer canvas >> nth=1")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    keep_screenshot(page, "duplicates")

    page.click("text=Not duplicates")

    page.goto("/")
    wait_until(lambda: "not_duplicate_of" in metadata(site, "photos/rocket.jpg"), "the verdict is stored")
    assert metadata(site, "photos/rocket.jpg")["not_duplicate_of"] == {"copies/rocket.jpg": True}
    page.goto("/web/duplicates")
    expect(page.locator("#browse h2")).to_have_text(f"0 groups, {IMAGES + 1} of {IMAGES + 1} images searched")


def test_queue_is_paused_and_resumed(page: Page) -> None:
    page.goto("/web/queue")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert")).to_contain_text("The queue is paused")

    page.get_by_role("button", name="Resume").click()

    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_camera_of_a_phone_searches(browser: Browser, site: Site) -> None:
    with opened(browser, site.origin, **PHONE) as page:
        page.goto("/")
        expect(page.locator(".camera")).to_be_visible()

        page.set_input_files(".camera input", EXAMPLES / "moose.jpg")

        expect(card(page, "photos/moose.jpg")).to_be_in_viewport()


def test_nothing_moves_with_reduced_motion(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto(STORED_PAGE)

    moving = page.evaluate(
        """[...document.querySelectorAll("*")].filter((each) => {
          const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(each);
          return parseFloat(transitionDuration) > 0 || animationName !== "none" || scrollBehavior === "smooth";
        }).map((each) => each.outerHTML)"""
    )

    assert moving == []


def test_failed_task_is_listed_and_retried(page: Page, site: Site) -> None:
    form = {"filepath": "broken.jpg", "wait": "60"}
    requests.post(f"{site.origin}/add", data=form, files={"image": b"\xff\xd8\xff\xe0"}, timeout=120)
    page.goto("/web/queue")
    expect(page.locator("tbody tr")).to_have_count(1)

    page.get_by_role("button", name="Retry broken.jpg").click()

    wait_until(lambda: attempts(site) == [2], "the task failed again")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_queue_of_2000_tasks_is_worked_off(browser: Browser, start: Callable[..., Site]) -> None:
    site = start(workers=0)
    for first in range(0, WAITING, 100):
        fields = {f"filepaths[{number}]": f"{first + number}.png" for number in range(100)}
        files = {f"images[{number}]": noise(first + number) for number in range(100)}
        requests.post(f"{site.origin}/add", data=fields, files=files, timeout=120).raise_for_status()
    with opened(browser, site.origin, **DESKTOP) as page:
        page.goto("/web/queue")
        waiting = page.locator("#numbers dd >> nth=0").inner_text()

        site.service.start_worker()
        page.locator("#numbers dd >> nth=0", has_text=f"{WAITING:,}").wait_for(state="detached")
        page.locator("[data-plot=open] polyline[points*=' ']").wait_for(state="attached")
        page.locator("[data-plot=rate] svg[aria-label*='highest 0/s']").wait_for(state="detached")
        keep_screenshot(page, "queue")
        page.goto("/")
        choose(page, noise(1))
        expect(card(page, "1.png")).to_be_visible()
        page.goto("/web/queue")
        page.locator("[data-number=open][value='0']").wait_for(state="attached", timeout=100_000)
    assert waiting == f"{WAITING:,}"


def test_a_thousand_matches_are_rendered_near_the_window_only(browser: Browser, start: Callable[..., Site]) -> None:
    site = start(workers=0, MATCH_THUMBNAILS_PX="0")
    store = SqliteStore(site.home / "match.db")
    store.put([record(f"{number}.jpg", number, record("", 1).signatures[0]) for number in range(1, MATCHES + 1)])
    store.close()
    with opened(browser, site.origin, **DESKTOP) as page:
        page.goto(f"/web/search?filepath=1.jpg&limit={MATCHES}")

        last = page.locator(".card >> nth=-1")
        style = last.evaluate("card => getComputedStyle(card).contentVisibility")

        # Without the query itself.
        assert page.locator(".card").count() == MATCHES - 1
        assert style == "auto"
        is_rendered = "card => card.querySelector('.score').checkVisibility({ contentVisibilityAuto: true })"
        assert last.evaluate(is_rendered) is False


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_have_no_accessibility_violations(browser: Browser, site: Site, device: Any, scheme: Any) -> None:
    form = {"filepath": "broken.jpg", "wait": "60"}
    requests.post(f"{site.origin}/add", data=form, files={"image": b"\xff\xd8\xff\xe0"}, timeout=120)
    context = browser.new_context(base_url=site.origin, color_scheme=scheme, bypass_csp=True, **device)
    page = context.new_page()
    violations: dict[str, list[str]] = {}
    too_wide = []

    for path in (*PAGES, STORED_PAGE):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        violations[path] = accessibility_violations(page)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            too_wide.append(path)
    page.goto("/")
    choose(page, screenshot_of("chelsea.jpg"))
    page.get_by_role("button", name="View").click()
    violations["viewer"] = accessibility_violations(page)
    if scheme == "dark" and device is PHONE:
        page.get_by_role("button", name="Close").click()
        keep_screenshot(page, "phone")

    context.close()
    assert violations == {name: [] for name in violations}
    assert too_wide == []


def test_focus_begins_with_the_link_to_the_content(page: Page) -> None:
    page.goto("/")
    focused = []
    for _ in range(11):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name"))

    names = ["Search", "Compare", "Collection", "Duplicates", "Queue", "Status", "API"]
    assert focused == ["Skip to the content", "Match", *names, "Paste an image Ctrl V", "image"]


def test_pages_work_without_javascript(browser: Browser, site: Site) -> None:
    with opened(browser, site.origin, java_script_enabled=False, **DESKTOP) as page:
        page.goto("/")
        choose(page, screenshot_of("chelsea.jpg"))
        page.get_by_role("button", name="Search", exact=True).click()
        expect(card(page, "photos/chelsea.jpg")).to_be_visible()
        page.click("text=Find similar")
        expect(page.locator("#results")).to_contain_text("No other image matches among 14 images")

        page.click("nav >> text=Compare")
        for name in ("image1", "image2"):
            page.set_input_files(f"[name={name}]", EXAMPLES / "camera.jpg")
        page.get_by_role("button", name="Compare").click()
        expect(page.locator(".score b")).to_have_text("100.0")

        page.click("nav >> text=Collection")
        page.fill("#browse [name=where]", "album=examples")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator(".tile")).to_have_count(14)


def test_key_of_a_reader_shows_only_what_it_may(browser: Browser, start: Callable[..., Site], tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    writer = "the key of a writer"
    keys.write_text(table("reader", [Scope.READ], KEY) + table("writer", [Scope.WRITE], writer))
    site = start(MATCH_API_KEYS_FILE=str(keys))
    requests.post(
        f"{site.origin}/add",
        data={"filepath": "chelsea.jpg", "wait": "60"},
        files={"image": (EXAMPLES / "chelsea.jpg").read_bytes()},
        headers={"Authorization": f"Bearer {writer}"},
        timeout=120,
    ).raise_for_status()
    with opened(browser, site.origin, **DESKTOP) as page:
        page.goto("/web/collection")
        page.fill("[name=key]", KEY)
        page.get_by_role("button", name="Open").click()

        image = page.locator(".tile img")
        expect(image).to_have_js_property("naturalWidth", 256)
        assert str(image.get_attribute("src")).startswith("blob:")
        assert page.locator("[data-select], [data-add]").count() == 0
        assert page.context.cookies() == []
        page.click("nav >> text=Search")
        choose(page, screenshot_of("chelsea.jpg"))
        expect(card(page, "chelsea.jpg").locator("img")).to_have_js_property("naturalWidth", 256)
        page.get_by_role("button", name="View").click()
        expect(page.locator("#viewer")).to_be_visible()
