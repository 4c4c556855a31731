"""A damaged file in place of the embedded store: tasks wait for its replacement, and none fails."""

from pathlib import Path
from time import sleep

from common.queue.stats import read_stats
from support.deployment import Deployment, size
from support.waiting import wait_until

SUFFIXES = ("", "-wal", "-shm")


def test_unusable_store_file_loses_nothing(deployment: Deployment, tmp_path: Path) -> None:
    path, aside = tmp_path / "match.db", tmp_path / "aside"
    aside.mkdir()
    held_s, count = size(2, 60), size(100, 1000)
    accepted = deployment.client().add_all(deployment.uploads(count))
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").rename(aside / f"match.db{suffix}")
    unusable = b"not a database" * 1000
    path.write_bytes(unusable)
    worker = deployment.service.start_worker()
    wait_until(lambda: "are waiting for the store" in deployment.service.log(worker), "records wait")
    sleep(held_s)
    open_tasks, after = read_stats(deployment.dependencies.redis).open, path.read_bytes()
    for suffix in SUFFIXES:
        (aside / f"match.db{suffix}").rename(f"{path}{suffix}")

    outcomes = deployment.finish(f"damaged file in place of the embedded store for {held_s} s", accepted)

    assert (open_tasks, after == unusable) == (count, True)
    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert deployment.service.starts(worker) == 1
