"""No key sees anything of a collection that it may not use, in any order of requests."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from redis import Redis

from api.use_cases import manage_collections
from common.store.sqlite import SqliteStore
from support.isolation import COLLECTIONS, FILEPATHS, IMAGES, KEYS, OPERATIONS, open_world

# Few collections, so that requests meet.
few_collections = st.sampled_from(COLLECTIONS[:4])
numbers = st.integers(0, 59)


def test_no_key_sees_other_collections(
    make_client: Callable[..., FlaskClient], real_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manage_collections, "REMEMBERED_S", 0.0)
    folders = count()

    class Requests(RuleBasedStateMachine):
        """Each run has an empty service."""

        def __init__(self) -> None:
            super().__init__()
            real_redis.flushall()
            self.opened = ExitStack()
            folder = tmp_path / f"{next(folders)}"
            store = SqliteStore(folder / "match.db")
            self.opened.callback(store.close)
            store.prepare()
            self.world = self.opened.enter_context(open_world(make_client, real_redis, store, folder / "keys.toml"))

        @rule(
            operation=st.sampled_from(OPERATIONS),
            key=st.sampled_from([*KEYS]),
            collection=few_collections,
            other=few_collections,
            filepath=st.integers(0, FILEPATHS - 1),
            image=st.integers(0, IMAGES - 1),
            number=numbers,
        )
        def request(
            self, operation: str, key: str, collection: str, other: str, filepath: int, image: int, number: int
        ) -> None:
            self.world.step(operation, key, collection, other, filepath, image, number)

        def teardown(self) -> None:
            self.opened.close()

    run_state_machine_as_test(
        Requests,
        settings=settings(
            max_examples=12,
            stateful_step_count=60,
            deadline=None,
            database=None,
            derandomize=True,
            # Shrinking takes minutes, and a failed reply shows its request.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
