"""An index server that is killed, read-only or unreachable: no task is lost or fails, and no worker spins."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import NoReturn

import pytest
import requests

from dev.programs import Running
from dev.search_node import SearchNode
from support.deployment import LONG, Deployment, size
from support.index_servers import PRODUCTS, Product, startable
from support.proxy import Proxy
from support.service import cpu_s
from support.waiting import wait_until

# The first test starts the server twice, which takes a minute each on a busy machine.
pytestmark = pytest.mark.timeout(size(300, 1800))
# Share of a core while a worker only waits.
IDLE_SHARE = 0.2


@pytest.fixture(scope="module", params=PRODUCTS)
def product(request: pytest.FixtureRequest, give_up: Callable[[str], NoReturn]) -> Product:
    return startable(request, give_up)


@pytest.fixture(scope="module")
def node(product: Product) -> Iterator[SearchNode]:
    """A node for this module, which kills it."""
    with product.node() as node:
        yield node


@pytest.fixture
def store_settings(node: SearchNode) -> dict[str, str]:
    return {
        "MATCH_STORE_URL": "",
        "ELASTICSEARCH_URL": node.url,
        "ELASTICSEARCH_INDEX": f"faults-{uuid.uuid4().hex[:12]}",
    }


@pytest.fixture
def timeouts(timeouts: dict[str, str]) -> dict[str, str]:
    """The defaults in the long form: its outages are longer than a task waits for its store."""
    return {} if LONG else timeouts | {"MATCH_ELASTICSEARCH_TIMEOUT_S": "3"}


def test_an_elasticsearch_crash_loses_nothing(deployment: Deployment, node: SearchNode, product: Product) -> None:
    down_s, count = size(5, 90), size(200, 2000)
    accepted = deployment.client().add_all(deployment.uploads(count))
    worker = deployment.service.start_worker()
    deployment.wait_for_stored(count // 4)
    node.kill()
    sleep(2)
    share = cpu_share(worker, during_s=down_s - 2)
    node.start()

    outcomes = deployment.finish(f"{product.name} down for {down_s} s, worker's CPU {share:.0%} of a core", accepted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert share < IDLE_SHARE
    assert deployment.service.starts(worker) == 1


def test_a_read_only_index_loses_nothing_and_rejects_deletes(deployment: Deployment, product: Product) -> None:
    blocked_s, count = size(4, 60), size(200, 2000)
    client = deployment.client()
    accepted = client.add_all(deployment.uploads(count))
    worker = deployment.service.start_worker()
    deployment.wait_for_stored(count // 4)
    # The server sets this block when its disk is nearly full.
    block(deployment, on=True)
    share = cpu_share(worker, during_s=blocked_s)
    deletion = requests.delete(f"{client.url}/delete", data={"filepath": "00000"}, timeout=60)
    block(deployment, on=False)

    outcomes = deployment.finish(
        f"index of {product.name} read-only for {blocked_s} s, worker's CPU {share:.0%} of a core", accepted
    )

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert deletion.status_code == 503
    assert int(deletion.headers["Retry-After"]) > 0
    assert share < IDLE_SHARE
    assert deployment.service.starts(worker) == 1


def test_a_stalled_network_to_elasticsearch_loses_nothing(
    deployment: Deployment, node: SearchNode, product: Product
) -> None:
    stall_s, count = size(5, 60), size(200, 2000)
    with Proxy(int(node.url.rpartition(":")[2])) as proxy:
        accepted = deployment.client().add_all(deployment.uploads(count))
        worker = deployment.service.start_worker(ELASTICSEARCH_URL=proxy.url("http"))
        deployment.wait_for_stored(count // 4)
        proxy.stall()
        sleep(stall_s)
        proxy.resume()

        outcomes = deployment.finish(f"network between workers and {product.name} stalled for {stall_s} s", accepted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert deployment.service.starts(worker) == 1


def test_a_stalled_elasticsearch_delays_no_short_request(
    deployment: Deployment, node: SearchNode, product: Product
) -> None:
    stall_s, count, clients = size(8, 60), size(50, 500), 32
    with Proxy(int(node.url.rpartition(":")[2])) as proxy, ThreadPoolExecutor(clients) as pool:
        client = deployment.client(ELASTICSEARCH_URL=proxy.url("http"))
        deployment.service.start_worker()
        wait_until(lambda: requests.get(f"{client.url}/readyz", timeout=30).ok, "the API is ready")
        proxy.stall()
        deadline = monotonic() + stall_s
        counts = [pool.submit(get_until, f"{client.url}/count", deadline) for _ in range(clients)]
        pings = get_until(f"{client.url}/ping", deadline)
        accepted = client.add_all(deployment.uploads(count))
        proxy.resume()

        outcomes = deployment.finish(f"network between API and {product.name} stalled for {stall_s} s", accepted)

    rejected = [response for responses in counts for response in responses.result() if not response.ok]
    ping_s = sorted(ping.elapsed.total_seconds() for ping in pings)
    assert {(response.status_code, response.json()["code"]) for response in rejected} <= {
        (503, "store_unavailable"),
        # While every thread waits for the server.
        (503, "overloaded"),
    }
    assert len(rejected) > clients
    # The first requests wait. Then the circuit breaker rejects all but one at once.
    assert sum(ping.ok for ping in pings) > 0.9 * len(pings)
    assert ping_s[len(ping_s) // 2] < 1
    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes


def get_until(url: str, deadline: float) -> list[requests.Response]:
    responses = []
    while monotonic() < deadline:
        responses.append(requests.get(url, timeout=120))
        sleep(0.2)
    return responses


def cpu_share(worker: Running, *, during_s: float) -> float:
    """Return the worker's share of a core during the next seconds."""
    used_s = cpu_s(worker.pid)
    sleep(during_s)
    return (cpu_s(worker.pid) - used_s) / during_s


def block(deployment: Deployment, *, on: bool) -> None:
    """Make the index read-only, or writable again."""
    response = requests.put(
        f"{deployment.environment['ELASTICSEARCH_URL']}/{deployment.environment['ELASTICSEARCH_INDEX']}/_settings",
        json={"index.blocks.read_only_allow_delete": on or None},
        timeout=30,
    )
    assert response.ok, response.text
