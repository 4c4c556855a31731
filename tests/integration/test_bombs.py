"""Images that cost a decoder much, sent to a real API: the searches of other clients are answered."""

import sys
from collections.abc import Iterator

import pytest

from dev.redis_server import RedisServer
from support.attack import attacking, largest_mib, search_all
from support.bombs import MB, bombs, endless
from support.images import gradient, noise
from support.processes import Api, serving_api
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests read /proc, and use 127.0.0.2")

SEARCHES = 100


@pytest.fixture(scope="module")
def api(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    environment = {"REDIS_URL": redis_server.url, "MATCH_DECODE_TIMEOUT_S": "2"}
    with serving_api(tmp_path_factory.mktemp("api"), environment) as api:
        yield api


def test_bombs_of_one_client_lose_no_search_of_another(api: Api) -> None:
    images = [noise(number) for number in range(SEARCHES)]
    assert search_all(api.url, images[:8], clients=4).lost == 0
    before = largest_mib(api.pid)

    with attacking(api.url, endless(bombs(size=2 * MB)), a_second=10) as answers:
        wait_until(lambda: answers, "the attack has begun")
        others = search_all(api.url, images, clients=4)

    assert others.lost == 0, others.statuses
    assert answers.keys() <= {200, 422, 503}
    assert search_all(api.url, [gradient()], clients=1).lost == 0
    after = largest_mib(api.pid)
    assert all(after[name] < before[name] + 150 for name in after), (before, after)
