"""Rolling updates: every API and worker is replaced under load, and no request or image is lost."""

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
from support.adds import Accepted, Item
from support.deployment import Deployment, size
from support.image_server import image
from support.service import wait_for_workers
from support.waiting import wait_until

# Grace periods.
API_GRACE_S = 80
WORKER_GRACE_S = 60
LINES = 20
RESPONSE_WITHIN_S = 60


@dataclass
class Load:
    """Clients that send requests until `stop`, with their responses and accepted adds."""

    url: str
    image_url: str
    stop: Event = field(default_factory=Event)
    succeeded: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    lock: Lock = field(default_factory=Lock)

    @contextmanager
    def from_clients(self, clients: Sequence[tuple[str, Callable[[requests.Session], None], float]]) -> Iterator[None]:
        """Keep up the load until the `with` block ends; each client has a name, a function and a pause in seconds."""
        with ThreadPoolExecutor(len(clients)) as pool:
            results = [pool.submit(self.repeat, *client) for client in clients]
            try:
                yield
            finally:
                self.stop.set()
            for result in results:
                result.result()

    def repeat(self, name: str, call: Callable[[requests.Session], None], pause_s: float) -> None:
        """Call until `stop`; a failure is recorded and not retried."""
        with requests.Session() as session:
            # At a reload, nginx before 1.27.4 closes idle connections on which the client may already send.
            session.headers["Connection"] = "close"
            while not self.stop.wait(pause_s):
                try:
                    call(session)
                except (requests.RequestException, ValueError) as error:
                    self.failed.append(f"{name}: {error!r}")
                else:
                    self.succeeded[name] += 1

    def add(self, session: requests.Session, **fields: str) -> None:
        item = self.item()
        data = {"filepath": item.filepath, **fields}
        response = self.send(session, "POST", "/add", data=data, files={"image": image(item.number)})
        self.accepted.append(Accepted(item, response.json()["task"]["id"]))

    def add_and_wait(self, session: requests.Session) -> None:
        self.add(session, wait="20")

    def batch(self, session: requests.Session) -> None:
        """Send lines one by one for a second, so that a stop interrupts half-read requests."""
        items = [self.item() for _ in range(LINES)]
        headers = {"Content-Type": "application/x-ndjson"}
        response = self.send(session, "POST", "/add/batch", data=slowly(items), headers=headers)
        outcomes = [json.loads(line) for line in response.text.splitlines()]
        if sum("task" in outcome for outcome in outcomes) != LINES:
            raise ValueError(response.text)
        self.accepted.extend(Accepted(items[line["line"] - 1], line["task"]["id"]) for line in outcomes)

    def search(self, session: requests.Session) -> None:
        self.send(session, "POST", "/search", files={"image": image(0)})

    def count(self, session: requests.Session) -> None:
        self.send(session, "GET", "/count")

    def item(self) -> Item:
        """Return an image that no other request adds."""
        with self.lock:
            number = next(self.numbers)
        return Item(f"{number:05}", number, f"{self.image_url}/{number}")

    def send(self, session: requests.Session, method: str, path: str, **body: object) -> requests.Response:
        response = session.request(method, self.url + path, timeout=RESPONSE_WITHIN_S, **body)  # type: ignore[arg-type]
        response.raise_for_status()
        return response


def slowly(items: list[Item]) -> Iterator[bytes]:
    for item in items:
        sleep(0.05)
        yield json.dumps({"filepath": item.filepath, "url": item.url}).encode() + b"\n"


@dataclass(frozen=True)
class Apis:
    """The APIs of docker-compose.yml behind their proxy, replaced as in `make rollout`."""

    deployment: Deployment
    proxy: Proxy
    running: list[Running]

    def replace_oldest(self) -> int:
        """Remove the oldest API from the upstream, stop it, and start another; return the exit status."""
        old = self.running.pop(0)
        self.proxy.route_to(map(port, self.running))
        status = self.deployment.service.stop(old, within_s=API_GRACE_S)
        self.running.append(start_api(self.deployment))
        self.proxy.route_to(map(port, self.running))
        return status


def start_api(deployment: Deployment) -> Running:
    """Start an API, and return it when it is ready."""
    url = deployment.service.start_api(MATCH_API_THREADS="32", MATCH_TRUSTED_PROXIES="1")
    wait_until(lambda: requests.get(f"{url}/readyz", timeout=5).ok, "the API is ready")
    return deployment.service.running("api")[-1]


def port(api: Running) -> int:
    return int(api.program.environment["PORT"])


@pytest.fixture
def timeouts() -> dict[str, str]:
    """The defaults: nothing is killed here, and a slow machine must not cause time-outs."""
    return {}


@pytest.mark.timeout(size(300, 1800))
def test_a_rolling_update_of_the_api_fails_no_request(
    deployment: Deployment, tmp_path: Path, give_up: Callable[[str], NoReturn]
) -> None:
    if reason := why_not():
        give_up(reason)
    rounds = size(1, 5)
    deployment.service.start_worker()
    apis = [start_api(deployment) for _ in range(2)]
    with Proxy(tmp_path / "proxy", map(port, apis)) as proxy:
        rollout = Apis(deployment, proxy, apis)
        load = Load(proxy.url, deployment.image_server.url)
        clients = [
            *[("add", load.add, 0.2), ("wait", load.add_and_wait, 0.2), ("batch", load.batch, 0.2)] * 2,
            *[("search", load.search, 0.1), ("count", load.count, 0.02)] * 2,
        ]
        with load.from_clients(clients):
            statuses = [rollout.replace_oldest() for _ in range(2 * rounds)]

    outcomes = deployment.finish(f"{2 * rounds} APIs replaced, {sum(load.succeeded.values())} requests", load.accepted)

    assert load.failed == []
    assert set(load.succeeded) == {name for name, *_ in clients}
    assert statuses == [0] * 2 * rounds
    assert (outcomes.stored, outcomes.repeated) == (len(load.accepted), 0), outcomes


def test_a_rolling_update_of_the_workers_repeats_nothing(deployment: Deployment) -> None:
    rounds, images = size(1, 5), size(400, 4000)
    # Few threads and slow downloads, so that the work lasts.
    threads = {"MATCH_WORKER_THREADS": "2"}
    workers = [deployment.service.start_worker(**threads) for _ in range(2)]
    items = [replace(item, url=f"{item.url}?late") for item in deployment.items(images)]
    accepted = deployment.client().add_batch(items)
    statuses = []
    for nth in range(1, 2 * rounds + 1):
        deployment.wait_for_stored(images * nth // (2 * rounds + 2))
        workers.append(deployment.service.start_worker(**threads))
        wait_for_workers(deployment.redis.url, len(workers))
        statuses.append(deployment.service.stop(workers.pop(0), within_s=WORKER_GRACE_S))

    outcomes = deployment.finish(f"{2 * rounds} workers replaced during a batch", accepted)

    assert statuses == [0] * 2 * rounds
    assert (outcomes.stored, outcomes.repeated) == (images, 0), outcomes
