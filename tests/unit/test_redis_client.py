"""The client of Redis."""

import pytest

from common.redis.client import connect


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", "sentinel://127.0.0.1:1/primary/0"])
def test_every_thread_can_have_a_connection(url: str) -> None:
    most_threads = 1024

    client = connect(url)

    # A worker has a second pool of threads for messages of many tasks.
    assert client.connection_pool.max_connections > 2 * most_threads
    client.close()
