"""Elasticsearch that dies, is read-only or cannot be heard: nothing is lost, nothing given up, and nobody spins."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import NoReturn

import pytest
import requests

from dev.elasticsearch_node import Node, why_not
from support.proxy import Proxy
from support.service import cpu_s
from support.stage import LONG, Stage, size
from support.stores import wait_for_stored
from support.waiting import wait_until

# Of a core, while there is nothing to do but to wait.
IDLE_SHARE = 0.2


@pytest.fixture(scope="module")
def node(give_up: Callable[[str], NoReturn]) -> Iterator[Node]:
    """A node of these tests alone: it is going to die."""
    if reason := why_not():
        give_up(reason)
    with Node() as node:
        yield node


@pytest.fixture
def place(node: Node) -> dict[str, str]:
    return {
        "MATCH_STORE_URL": "",
        "ELASTICSEARCH_URL": node.url,
        "ELASTICSEARCH_INDEX": f"faults-{uuid.uuid4().hex[:12]}",
    }


@pytest.fixture
def limits(limits: dict[str, str]) -> dict[str, str]:
    """In the long form what the service comes with: the outages are longer than a task waits for its store."""
    return {} if LONG else limits | {"MATCH_ELASTICSEARCH_TIMEOUT_S": "3"}


def test_an_elasticsearch_killed_during_work_loses_nothing(stage: Stage, node: Node) -> None:
    away_s, count = size(5, 90), size(200, 2000)
    accepted = stage.client().add_all(stage.uploads(count))
    worker = stage.service.start_worker()
    wait_for_stored(stage.parts.store, count // 4)
    node.kill()
    sleep(2)
    used_s = cpu_s(worker.pid)
    sleep(away_s - 2)
    share = (cpu_s(worker.pid) - used_s) / (away_s - 2)
    node.start()

    found = stage.finish(f"Elasticsearch killed for {away_s} s, worker's CPU {share:.0%} of a core", accepted)

    assert (found.accepted, found.stored) == (count, count)
    assert share < IDLE_SHARE
    assert stage.service.starts(worker) == 1


def test_a_read_only_index_loses_nothing_and_is_told(stage: Stage) -> None:
    blocked_s, count = size(4, 60), size(200, 2000)
    client = stage.client()
    accepted = client.add_all(stage.uploads(count))
    worker = stage.service.start_worker()
    wait_for_stored(stage.parts.store, count // 4)
    # What Elasticsearch does by itself when its disk is nearly full.
    block(stage, on=True)
    used_s = cpu_s(worker.pid)
    sleep(blocked_s)
    share = (cpu_s(worker.pid) - used_s) / blocked_s
    deletion = requests.delete(f"{client.url}/delete", data={"filepath": "00000"}, timeout=60)
    block(stage, on=False)

    found = stage.finish(f"index read-only for {blocked_s} s, worker's CPU {share:.0%} of a core", accepted)

    assert (found.accepted, found.stored) == (count, count)
    assert deletion.status_code == 503
    assert int(deletion.headers["Retry-After"]) > 0
    assert share < IDLE_SHARE
    assert stage.service.starts(worker) == 1


def test_a_half_open_network_between_workers_and_elasticsearch_loses_nothing(stage: Stage, node: Node) -> None:
    stall_s, count = size(5, 60), size(200, 2000)
    with Proxy(int(node.url.rpartition(":")[2])) as proxy:
        accepted = stage.client().add_all(stage.uploads(count))
        worker = stage.service.start_worker(ELASTICSEARCH_URL=proxy.url("http"))
        wait_for_stored(stage.parts.store, count // 4)
        proxy.stall()
        sleep(stall_s)
        proxy.resume()

        found = stage.finish(f"network between workers and Elasticsearch stalled for {stall_s} s", accepted)

    assert (found.accepted, found.stored) == (count, count)
    assert stage.service.starts(worker) == 1


def test_a_silent_elasticsearch_holds_up_no_short_request(stage: Stage, node: Node) -> None:
    stall_s, count, crowd = size(8, 60), size(50, 500), 32
    with Proxy(int(node.url.rpartition(":")[2])) as proxy, ThreadPoolExecutor(crowd) as pool:
        client = stage.client(ELASTICSEARCH_URL=proxy.url("http"))
        stage.service.start_worker()
        wait_until(lambda: requests.get(f"{client.url}/readyz", timeout=30).ok, "the API is ready")
        proxy.stall()
        until = monotonic() + stall_s
        asked = [pool.submit(ask_until, f"{client.url}/count", until) for _ in range(crowd)]
        pings = ask_until(f"{client.url}/ping", until)
        accepted = client.add_all(stage.uploads(count))
        proxy.resume()

        found = stage.finish(f"network between API and Elasticsearch stalled for {stall_s} s", accepted)

    refused = [answer for one in asked for answer in one.result() if not answer.ok]
    waited = sorted(ping.elapsed.total_seconds() for ping in pings)
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} <= {
        (503, "store_unavailable"),
        # Who found no thread while all of them asked at once.
        (503, "overloaded"),
    }
    assert len(refused) > crowd
    # At first all ask at once; from then on everybody but one is told at once.
    assert sum(ping.ok for ping in pings) > 0.9 * len(pings)
    assert waited[len(waited) // 2] < 1
    assert (found.accepted, found.stored) == (count, count)


def ask_until(url: str, until: float) -> list[requests.Response]:
    answers = []
    while monotonic() < until:
        answers.append(requests.get(url, timeout=120))
        sleep(0.2)
    return answers


def block(stage: Stage, *, on: bool) -> None:
    answer = requests.put(
        f"{stage.environment['ELASTICSEARCH_URL']}/{stage.environment['ELASTICSEARCH_INDEX']}/_settings",
        json={"index.blocks.read_only_allow_delete": on or None},
        timeout=30,
    )
    assert answer.ok, answer.text
