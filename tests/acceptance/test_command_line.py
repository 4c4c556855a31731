"""`match` and its client with the whole service behind them: kills, 100,000 files, and the first hour of a user."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import Any, NoReturn

import pytest
import requests
from PIL import Image

from dev.ports import free_port
from dev.redis_server import RedisServer
from match_cli.exits import Exit
from match_cli.sending import FILES_PER_REQUEST
from match_client import Match, NewImage
from match_client.transport import Reply, Request, Transport
from support.browsers import chromium
from support.http_servers import serving
from support.image_server import ImageServer, image
from support.match_command import ROOT, MatchCommand
from support.service import Service, peak_mib, resident_mib
from support.waiting import wait_until

WITHIN_S = 600.0
# The same pseudo-random moments in each run of the tests.
RANDOM = random.Random(1)
BATCH = "acceptance"
URLS = 20_000
# Images with different pixels; the names are all different.
DISTINCT = 500
KILLS = 20
MAX_SENT_AGAIN = URLS // 100
TRIES = 20
INTERRUPTIONS = 3
FILES = int(os.environ.get("MATCH_ACCEPTANCE_FILES", "100000"))
# The files of the bare endpoint, before and after those of the command.
BARE_FILES = FILES // 10
JOBS = 4
LEAST_SHARE_OF_RATE = 0.9
MAX_GROWTH = 1.25
PHOTOGRAPHS = Path(os.environ.get("MATCH_TEST_DATA", ROOT.parent / "shared" / "data")) / "photos"


@dataclass(frozen=True)
class Running:
    """A running service: one API and two workers with an embedded store."""

    service: Service
    url: str
    images_url: str

    def kill_api(self) -> None:
        """End the API by kill -9, with all its processes; the service starts another."""
        [api] = self.service.running("api")
        os.killpg(api.pid, signal.SIGKILL)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path / "redis"))
        images = stack.enter_context(serving(ImageServer()))
        environment = {
            "REDIS_URL": redis.url,
            "MATCH_STORE_URL": f"sqlite:///{tmp_path / 'match.db'}",
            "MATCH_FETCH_ALLOW": images.address,
            "MATCH_API_HOST": "127.0.0.1",
            "WORKER_COUNT": "1",
            # A killed API leaves tasks without a message, which the workers send after a minute, not ten.
            "MATCH_SWEEP_AFTER_S": "60",
            "MATCH_VISIBILITY_TIMEOUT_S": "60",
            "MATCH_FETCH_TIMEOUT_S": "20",
            "MATCH_DECODE_TIMEOUT_S": "10",
            "MATCH_STORE_HOLD_S": "5",
        }
        logs = tmp_path / "logs"
        logs.mkdir()
        service = stack.enter_context(Service(logs, environment))
        url = service.start_api()
        for _ in range(2):
            service.start_worker()
        yield Running(service, url, images.url)


@pytest.fixture
def match(running: Running, tmp_path: Path) -> MatchCommand:
    return MatchCommand(tmp_path / "home", running.url)


class WireCounter:
    """Counts the lines that a client sends to `/add/batch`, and how many of them the service had accepted before.

    While requests are on their way it kills the API, at `KILLS` evenly spread moments.
    """

    def __init__(self, send_once: Callable[[Transport, Request], Reply], kill: Callable[[], None]) -> None:
        self._send_once = send_once
        self._kill = kill
        self._request_s = 0.05
        self.lines = 0
        self.accepted_before = 0
        self.kills = 0

    def send_once(self, transport: Transport, request: Request) -> Reply:
        """Send a request, instead of the transport's own method."""
        if request.path != "/add/batch":
            return self._send_once(transport, request)
        self.lines += sum(bool(line) for line in (request.body or b"").splitlines())
        if self.kills < KILLS and self.lines > (self.kills + 1) * URLS // (KILLS + 1):
            self.kills += 1
            Timer(RANDOM.uniform(0, self._request_s), self._kill).start()
        started = monotonic()
        reply = self._send_once(transport, request)
        self._request_s = monotonic() - started
        self.accepted_before += sum(json.loads(line).get("replayed", False) for line in reply.body.splitlines())
        return reply


@pytest.mark.timeout(3600)
def test_kills_of_the_api_send_nothing_twice(
    running: Running, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    counter = WireCounter(Transport.send_once, running.kill_api)
    # A bound method would not be passed the transport.
    monkeypatch.setattr(Transport, "send_once", lambda *arguments: counter.send_once(*arguments))  # noqa: PLW0108
    images = (NewImage(image=f"{running.images_url}/{n % DISTINCT}", filepath=f"{n:05}") for n in range(URLS))

    with Match(running.url) as match:
        outcomes = list(match.add_many(images, batch=BATCH))
        batch = wait_until(lambda: _ended(match, BATCH), "all images are stored", within_s=WITHIN_S)
        [api] = running.service.running("api")
        wait_until(lambda: running.service.starts(api) == KILLS + 1, "the API was killed and started each time")
        stored = sorted(match.list())

    record_property(
        "measured", f"{counter.lines} sent for {URLS}; sent again although accepted: {counter.accepted_before}"
    )
    assert [outcome.status for outcome in outcomes] == ["ok"] * URLS
    assert (batch.total, batch.succeeded) == (URLS, URLS)
    assert stored == [f"{n:05}" for n in range(URLS)]
    assert counter.accepted_before <= MAX_SENT_AGAIN


def _ended(match: Match, batch_id: str) -> Any:
    batch = match.batch(batch_id)
    return batch if batch.pending + batch.running == 0 else None


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let commands end at SIGINT, also if this program was started to ignore it, as by nohup."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("interruptible")
def test_interrupted_adds_lose_and_double_nothing(running: Running, match: MatchCommand, tmp_path: Path) -> None:
    names = write_images(tmp_path / "images", 200)
    command = ["add", tmp_path / "images", "--jobs", 2, "--json", "--collection"]
    started = monotonic()
    match.start(*command, "whole").communicate()
    whole_s = monotonic() - started
    ends: list[int] = []

    for number in range(TRIES):
        for interruption in range(INTERRUPTIONS):
            end = signal.SIGKILL if (number + interruption) % 2 else signal.SIGINT
            ends.append(interrupted(match.start(*command, f"try-{number}"), end, after_s=RANDOM.uniform(0, whole_s)))
        last = match.start(*command, f"try-{number}")
        out, err = last.communicate(timeout=WITHIN_S)

        with Match(running.url) as client:
            assert last.returncode == 0, f"{out}{err}"
            assert sorted(client.list(collection=f"try-{number}")) == names
            batches = list(client.batches(collection=f"try-{number}"))
            assert sum(batch.total for batch in batches) == len(names), batches
    assert {-signal.SIGKILL, Exit.INTERRUPTED} <= {*ends}


def interrupted(process: "subprocess.Popen[str]", end: signal.Signals, *, after_s: float) -> int:
    """Send a signal to a command after some time, and return its exit status."""
    timer = Timer(after_s, partial(process.send_signal, end))
    timer.start()
    process.communicate(timeout=WITHIN_S)
    timer.cancel()
    return process.returncode


def write_images(folder: Path, number: int) -> list[str]:
    """Write images into folders of a thousand, and return their paths in order."""
    paths = [folder / f"{n // 1000:03}" / f"{n:06}.jpg" for n in range(number)]
    for n, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(n % DISTINCT))
    return [str(path) for path in paths]


@pytest.mark.timeout(7200)
def test_many_files_take_flat_memory_at_the_endpoints_rate(
    running: Running, match: MatchCommand, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    write_images(tmp_path / "files", FILES)
    bare = write_images(tmp_path / "bare", 2 * BARE_FILES)

    first_rate = bare_rate(running.url, bare[:BARE_FILES])
    started = monotonic()
    process = match.start("add", tmp_path / "files", "--jobs", JOBS, "--json")
    with Match(running.url) as client:
        wait_until(lambda: client.count() >= BARE_FILES + FILES // 10, "a tenth is stored", within_s=WITHIN_S)
        early_mib = resident_mib(process.pid)
        wait_until(lambda: client.count() >= BARE_FILES + FILES * 99 // 100, "nearly all is stored", within_s=3600)
        peak = peak_mib(process.pid)
    out, err = process.communicate(timeout=WITHIN_S)
    rate = FILES / (monotonic() - started)
    last_rate = bare_rate(running.url, bare[BARE_FILES:])

    share = rate / ((first_rate + last_rate) / 2)
    measured = (
        f"{rate:.0f}/s, bare {first_rate:.0f}/s and {last_rate:.0f}/s; {early_mib:.0f} MiB, at most {peak:.0f} MiB"
    )
    record_property("measured", measured)
    assert (process.returncode, f'"stored": {FILES}' in out) == (0, True), f"{out}{err}"
    assert peak < early_mib * MAX_GROWTH
    assert share >= LEAST_SHARE_OF_RATE


def bare_rate(url: str, paths: list[str]) -> float:
    """Return how many files a second the endpoint stores for a client that only posts them."""
    groups = [paths[start : start + FILES_PER_REQUEST] for start in range(0, len(paths), FILES_PER_REQUEST)]
    with requests.Session() as session, ThreadPoolExecutor(JOBS) as threads:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=JOBS))

        def post(group: list[str]) -> None:
            names = {f"filepaths[{n}]": path for n, path in enumerate(group)}
            files = {f"images[{n}]": ("image", Path(path).read_bytes()) for n, path in enumerate(group)}
            reply = session.post(f"{url}/add", data=names, files=files, headers={"Prefer": "wait=30"}, timeout=120)
            assert reply.json()["status"] == "ok", reply.text

        started = monotonic()
        list(threads.map(post, groups))
        return len(paths) / (monotonic() - started)


@pytest.fixture
def make_dev(tmp_path: Path) -> Iterator[str]:
    """The URL of what `make dev` runs, on ports of its own."""
    settings = ("MATCH_", "ELASTICSEARCH_", "REDIS_URL", "PORT", "WORKER_COUNT")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    ports = {name: str(free_port()) for name in ("PORT", "FLOWER_PORT", "MATCH_WORKER_METRICS_PORT")}
    environment |= ports | {"MATCH_HOME": str(tmp_path / "service")}
    command = [sys.executable, "-m", "dev.stack"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert any(line == "ready\n" for line in process.stdout or ())
        yield f"http://127.0.0.1:{ports['PORT']}"
        process.send_signal(signal.SIGINT)
        process.wait(WITHIN_S)


@pytest.mark.timeout(1800)
def test_photographs_are_added_found_and_grouped(
    make_dev: str, tmp_path: Path, give_up: Callable[[str], NoReturn]
) -> None:
    match = MatchCommand(tmp_path / "home", make_dev)
    if not PHOTOGRAPHS.is_dir():
        give_up("no photos/ in MATCH_TEST_DATA, nor in ../shared/data")
    folder = match.home / "Pictures"
    shutil.copytree(PHOTOGRAPHS, folder, copy_function=shutil.copyfile)
    originals = sorted(folder.iterdir())
    copies = {path: folder / f"copy of {path.stem}.png" for path in originals[:3]}
    for path, copy in copies.items():
        with Image.open(path) as original:
            original.reduce(2).save(copy)
    cropped = match.home / "cropped.jpg"
    crop(originals[10], cropped)

    process = match.start("add", folder)
    with Match(make_dev) as client:
        wait_until(lambda: client.count() >= len(originals) // 4, "a quarter is stored")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WITHIN_S)
    resumed = match.run(f"match add {folder} --json").json
    matches = match.run(f"match search {cropped} --json").json["matches"]
    match.run(f"match duplicates --html {match.home / 'out.html'}")
    groups = match.run("match duplicates --json").out

    assert process.returncode == Exit.INTERRUPTED
    assert resumed["stored"] + resumed["skipped"] == len(originals) + len(copies)
    assert matches[0]["filepath"] == str(originals[10])
    assert all(f'["{copy}", "{path}"]' in groups for path, copy in copies.items()), groups
    with chromium(give_up) as browser, browser.new_page() as page:
        page.goto((match.home / "out.html").as_uri())
        images = page.locator("img")
        assert images.count() >= 2 * len(copies)
        assert all(images.nth(n).evaluate("image => image.naturalWidth > 0") for n in range(images.count()))


def crop(path: Path, to: Path) -> None:
    """Write the middle of an image."""
    with Image.open(path) as whole:
        width, height = whole.size
        whole.crop((width // 5, height // 5, width * 4 // 5, height * 4 // 5)).save(to)


def test_the_wheel_has_the_program(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "site"]
    source = shutil.copytree(ROOT / "client", tmp_path / "client")

    subprocess.run([*build, source], check=True)
    [wheel] = tmp_path.glob("match_client-*.whl")
    subprocess.run([*install, wheel], check=True)
    help_ = subprocess.run(
        [tmp_path / "site" / "bin" / "match", "--help"],
        env={"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "Find images with Match" in help_.stdout
    assert (tmp_path / "site" / "match_client" / "py.typed").exists()
