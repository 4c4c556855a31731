"""Rolling updates: every API and worker is replaced under load, and neither a request nor an image is lost."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from threading import Event, Lock
from time import sleep
from typing import NoReturn

import pytest
import requests

from dev.programs import Running
from dev.proxy import Proxy, why_not
from support.accounts import Accepted, Item
from support.image_server import image
from support.service import wait_for_workers
from support.stage import Stage, size
from support.stores import wait_for_stored
from support.waiting import wait_until

# Seconds that an API, and a worker, have to end before they are killed.
API_GRACE_S = 80
WORKER_GRACE_S = 60
LINES = 20
ANSWER_WITHIN_S = 60


@dataclass
class Load:
    """Clients that send requests until `stop`: what each was answered, and what it had accepted."""

    url: str
    pictures: str
    stop: Event = field(default_factory=Event)
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    lock: Lock = field(default_factory=Lock)

    @contextmanager
    def from_clients(self, clients: Sequence[tuple[str, Callable[[requests.Session], None], float]]) -> Iterator[None]:
        """Keep up the load while the `with` lasts: each client's name, what it calls, and its pause in seconds."""
        with ThreadPoolExecutor(len(clients)) as pool:
            busy = [pool.submit(self.repeat, *client) for client in clients]
            try:
                yield
            finally:
                self.stop.set()
            for one in busy:
                one.result()

    def repeat(self, name: str, call: Callable[[requests.Session], None], pause_s: float) -> None:
        """Call again and again; a failure is noted, not tried again."""
        with requests.Session() as session:
            # At a reload, nginx before 1.27.4 closes a kept connection on which the client may be sending already.
            session.headers["Connection"] = "close"
            while not self.stop.wait(pause_s):
                try:
                    call(session)
                except (requests.RequestException, ValueError) as error:
                    self.failed.append(f"{name}: {error!r}")
                else:
                    self.answered[name] += 1

    def add(self, session: requests.Session, **fields: str) -> None:
        item = self.item()
        data = {"filepath": item.filepath, **fields}
        answer = self.send(session, "POST", "/add", data=data, files={"image": image(item.number)})
        self.accepted.append(Accepted(item, answer.json()["task"]["id"]))

    def add_and_wait(self, session: requests.Session) -> None:
        self.add(session, wait="20")

    def batch(self, session: requests.Session) -> None:
        """Send lines one by one, for a second and more: a stop finds some of these requests half read."""
        items = [self.item() for _ in range(LINES)]
        headers = {"Content-Type": "application/x-ndjson"}
        answer = self.send(session, "POST", "/add/batch", data=slowly(items), headers=headers)
        outcomes = [json.loads(line) for line in answer.text.splitlines()]
        if sum("task" in outcome for outcome in outcomes) != LINES:
            raise ValueError(answer.text)
        self.accepted.extend(Accepted(items[one["line"] - 1], one["task"]["id"]) for one in outcomes)

    def search(self, session: requests.Session) -> None:
        self.send(session, "POST", "/search", files={"image": image(0)})

    def count(self, session: requests.Session) -> None:
        self.send(session, "GET", "/count")

    def item(self) -> Item:
        """Return a picture that nobody else adds."""
        with self.lock:
            number = next(self.numbers)
        return Item(f"{number:05}", number, f"{self.pictures}/{number}")

    def send(self, session: requests.Session, method: str, path: str, **body: object) -> requests.Response:
        answer = session.request(method, self.url + path, timeout=ANSWER_WITHIN_S, **body)  # type: ignore[arg-type]
        answer.raise_for_status()
        return answer


def slowly(items: list[Item]) -> Iterator[bytes]:
    for item in items:
        sleep(0.05)
        yield json.dumps({"filepath": item.filepath, "url": item.url}).encode() + b"\n"


@dataclass(frozen=True)
class Apis:
    """The API containers of docker-compose.yml behind their proxy, replaced as `make rollout` does it."""

    stage: Stage
    proxy: Proxy
    running: list[Running]

    def replace_eldest(self) -> int:
        """Take the eldest out of the upstream, stop it, and start another; return the status with which it ended."""
        old = self.running.pop(0)
        self.proxy.route_to(map(port, self.running))
        self.stage.service.let_go(old)
        old.ask_to_stop()
        status = old._process.wait(API_GRACE_S)
        self.running.append(start_api(self.stage))
        self.proxy.route_to(map(port, self.running))
        return status


def start_api(stage: Stage) -> Running:
    """Start an API, and return it when it is ready."""
    url = stage.service.start_api(MATCH_API_THREADS="32", MATCH_TRUSTED_PROXIES="1")
    wait_until(lambda: requests.get(f"{url}/readyz", timeout=5).ok, "the API is ready")
    return stage.service.running("api")[-1]


def port(api: Running) -> int:
    return int(api.program.environment["PORT"])


@pytest.fixture
def limits() -> dict[str, str]:
    """The defaults: nothing dies here, and a machine that is slow is no fault."""
    return {}


@pytest.mark.timeout(size(300, 1800))
def test_a_rolling_update_of_the_api_fails_no_request(
    stage: Stage, tmp_path: Path, give_up: Callable[[str], NoReturn]
) -> None:
    if reason := why_not():
        give_up(reason)
    rounds = size(1, 5)
    stage.service.start_worker()
    apis = [start_api(stage) for _ in range(2)]
    with Proxy(tmp_path / "proxy", map(port, apis)) as proxy:
        replaced = Apis(stage, proxy, apis)
        load = Load(proxy.url, stage.images.url)
        clients = [
            *[("add", load.add, 0.2), ("wait", load.add_and_wait, 0.2), ("batch", load.batch, 0.2)] * 2,
            *[("search", load.search, 0.1), ("count", load.count, 0.02)] * 2,
        ]
        with load.from_clients(clients):
            ended = [replaced.replace_eldest() for _ in range(2 * rounds)]

    found = stage.finish(f"{2 * rounds} APIs replaced, {sum(load.answered.values())} requests", load.accepted)

    assert load.failed == []
    assert set(load.answered) == {name for name, *_ in clients}
    assert ended == [0] * 2 * rounds
    assert (found.stored, found.repeated) == (len(load.accepted), 0)


def test_a_rolling_update_of_the_workers_repeats_nothing(stage: Stage) -> None:
    rounds, pictures = size(1, 5), size(400, 4000)
    # So few threads that the work lasts: it waits for pictures.
    threads = {"MATCH_WORKER_THREADS": "2"}
    workers = [stage.service.start_worker(**threads) for _ in range(2)]
    accepted = stage.client().add_batch([replace(item, url=f"{item.url}?late") for item in stage.items(pictures)])
    ended = []
    for nth in range(1, 2 * rounds + 1):
        wait_for_stored(stage.parts.store, pictures * nth // (2 * rounds + 2))
        workers.append(stage.service.start_worker(**threads))
        wait_for_workers(stage.redis.url, len(workers))
        old = workers.pop(0)
        stage.service.let_go(old)
        old.ask_to_stop()
        ended.append(old._process.wait(WORKER_GRACE_S))

    found = stage.finish(f"{2 * rounds} workers replaced during a batch", accepted)

    assert ended == [0] * 2 * rounds
    assert (found.stored, found.repeated) == (pictures, 0)
