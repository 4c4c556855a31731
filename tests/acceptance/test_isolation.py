"""100,000 mixed requests of 20 keys to 50 collections: none receives anything of another key's collections."""

import os
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.use_cases import manage_collections
from common.store.base import Store
from common.store.elastic import ElasticStore
from common.store.elastic.connection import Connection
from common.store.sqlite import SqliteStore
from support.isolation import COLLECTIONS, FILEPATHS, IMAGES, KEYS, OPERATIONS, World, open_world

REQUESTS = int(os.environ.get("MATCH_ISOLATION_REQUESTS") or 100_000)
SEED = int(os.environ.get("MATCH_ISOLATION_SEED") or 1)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    with closing(SqliteStore(tmp_path / "match.db")) as store:
        yield store


@pytest.fixture
def elastic(elasticsearch_url: str) -> Iterator[Store]:
    index = f"isolation-{uuid.uuid4().hex[:12]}"
    with closing(ElasticStore(elasticsearch_url, index=index, timeout_s=60)) as store:
        yield store
    with closing(Connection(elasticsearch_url, index=index, timeout_s=20)) as connection:
        connection.cluster().delete(f"/{index}-1", ignore_unavailable="true")


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("elastic", marks=pytest.mark.elasticsearch)])
def test_no_key_sees_other_collections(
    make_client: Callable[..., FlaskClient],
    real_redis: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    monkeypatch.setattr(manage_collections, "REMEMBERED_S", 0.0)
    store: Store = request.getfixturevalue(kind)
    store.prepare()
    dice = random.Random(SEED)

    with open_world(make_client, real_redis, store, tmp_path / "keys.toml", keep_s=100_000) as world:
        while world.requests < REQUESTS:
            step(world, dice)

    assert world.requests >= REQUESTS
    assert all(world.answered[key] for key in KEYS)


def step(world: World, dice: random.Random) -> None:
    """Send a random request, most often to a collection that the key may use."""
    key, operation = dice.choice([*KEYS]), dice.choice(OPERATIONS)
    names = dice.choices(COLLECTIONS, k=2) if dice.random() < 0.3 else dice.choices(world.allowed(key), k=2)
    numbers = dice.randrange(FILEPATHS), dice.randrange(IMAGES), dice.randrange(10_000)
    world.step(operation, key, *names, *numbers)
