"""The environment of a fault test, and the row of its outcome in the table of results."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import monotonic

from common.wiring import Dependencies
from dev.programs import Running
from dev.redis_server import RedisServer
from support.accounts import Accepted, Account, Client, Item, account, wait_for_ends
from support.image_server import ImageServer
from support.service import Service
from support.stores import wait_for_stored

# `make faults` runs the full counts and outages. Without it, all fault tests take two minutes.
LONG = os.environ.get("MATCH_FAULTS") == "long"


def size(short: int, long: int) -> int:
    """Return the count or the seconds for this run: `long` with `make faults`, else `short`."""
    return long if LONG else short


@dataclass(frozen=True)
class Stage:
    """A Redis, a store, and a service that is not started yet.

    `parts` are the test's own connections, which faults do not affect.
    """

    environment: Mapping[str, str]
    redis: RedisServer
    images: ImageServer
    service: Service
    parts: Dependencies
    record: Callable[[str, object], None]

    def client(self, **settings: str) -> Client:
        """Start an API, and return a client of it."""
        return Client(self.service.start_api(**settings))

    def items(self, count: int, *, start: int = 0) -> list[Item]:
        """Return `count` images with URLs."""
        return [Item(f"{n:05}", n, f"{self.images.url}/{n}") for n in range(start, start + count)]

    def uploads(self, count: int, *, start: int = 0) -> list[Item]:
        """Return `count` images to upload."""
        return [Item(f"{n:05}", n) for n in range(start, start + count)]

    def kill_while_storing(self, worker: Running, *, kills: int, of: int) -> None:
        """Kill the worker `kills` times at equal intervals while it stores `of` images."""
        for nth in range(1, kills + 1):
            wait_for_stored(self.parts.store, of * nth // (kills + 2))
            os.kill(worker.pid, signal.SIGKILL)

    def finish(
        self,
        scenario: str,
        accepted: Sequence[Accepted],
        *,
        newest: Mapping[str, int | None] | None = None,
        since: float | None = None,
        within_s: float = 180,
    ) -> Account:
        """Wait until every task has ended, count the outcomes, and add a row to the table.

        `newest` is as in `account`; `since` is the end of the fault, by default now.
        """
        since = monotonic() if since is None else since
        wait_for_ends(self.parts, accepted, within_s=within_s)
        seconds = monotonic() - since
        row = account(self.parts, accepted, newest)
        self.record("fault", {"scenario": scenario} | asdict(row) | {"seconds": f"{seconds:.1f}"})
        return row
