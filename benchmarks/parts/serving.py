"""An API with one process over a store of signatures, for benchmarks of its requests."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from parts.collection import filepath, metadata
from parts.pipelines import running, wait_for

from common.config import Settings
from common.store.base import Record
from common.wiring import build_dependencies
from dev.ports import free_port
from dev.redis_server import RedisServer

BATCH = 500


def named(settings: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the settings of the index or file with this name."""
    return {key: value.replace("NAME-ROUND", name) for key, value in settings.items()}


@contextmanager
def api(store: Mapping[str, str], *, processes: int = 1) -> Iterator[tuple[int, int]]:
    """Start an API; yield its port and the id of its first process."""
    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as redis:
        port = free_port()
        listens = {
            "MATCH_API_HOST": "127.0.0.1",
            "PORT": f"{port}",
            "WORKER_COUNT": f"{processes}",
            "MATCH_LOG_LEVEL": "error",
        }
        with running({"api": ["-m", "api"]}, {**store, "REDIS_URL": redis.url, **listens}) as started:
            wait_for(f"http://127.0.0.1:{port}/readyz")
            yield port, started["api"].pid


def fill(store: Mapping[str, str], rows: Sequence[np.ndarray]) -> None:
    """Store an image for each signature; its filepath is that of the row's number."""
    with closing(build_dependencies(Settings.from_env(store)).store) as opened:
        opened.prepare()
        for start in range(0, len(rows), BATCH):
            opened.put(
                [
                    Record(
                        filepath=filepath(start + number),
                        seq=start + number + 1,
                        signatures=(row,),
                        metadata=metadata(start + number),
                        added=0,
                        width=500,
                        height=375,
                    )
                    for number, row in enumerate(rows[start : start + BATCH])
                ]
            )
        opened.refresh()
