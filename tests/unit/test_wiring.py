"""The dependencies of both services are closed together."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.config import Settings
from common.errors import StoreError
from common.store.sqlite import SqliteStore
from common.wiring import build_dependencies


class BrokenStore(SqliteStore):
    """A store that fails to close."""

    def close(self) -> None:
        raise StoreError("it broke")


def test_an_error_on_close_keeps_nothing_else_open(tmp_path: Path) -> None:
    dependencies = replace(
        build_dependencies(Settings(store_url=f"sqlite:///{tmp_path / 'match.db'}")),
        store=BrokenStore(tmp_path / "x.db"),
    )
    closed: list[str] = []
    dependencies.redis.close = lambda: closed.append("redis")  # type: ignore[method-assign]

    with pytest.raises(StoreError, match="it broke"):
        dependencies.close()

    assert "redis" in closed
