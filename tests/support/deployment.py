"""A service with its Redis and store, for tests that make them fail."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import monotonic

from common.wiring import Dependencies
from dev.programs import Running
from dev.redis_server import RedisServer
from support.adds import Accepted, Client, Item, Outcomes, count_outcomes, wait_for_ends
from support.image_server import ImageServer
from support.service import Service
from support.stores import wait_for_stored

# `make faults` runs full counts and outages. The short form takes two minutes.
LONG = os.environ.get("MATCH_FAULTS") == "long"


def size(short: int, long: int) -> int:
    """Return a count, or the seconds of an outage, in the form that runs."""
    return long if LONG else short


@dataclass(frozen=True)
class Deployment:
    """A Redis, a store, and a service that is not running yet.

    `dependencies` are the test's own connections, which no fault affects.
    """

    environment: Mapping[str, str]
    redis: RedisServer
    image_server: ImageServer
    service: Service
    dependencies: Dependencies
    record: Callable[[str, object], None]

    def client(self, **settings: str) -> Client:
        """Start an API, and return a client of it."""
        return Client(self.service.start_api(**settings))

    def items(self, count: int, *, start: int = 0) -> list[Item]:
        """Return `count` images, each with a URL."""
        return [Item(f"{n:05}", n, f"{self.image_server.url}/{n}") for n in range(start, start + count)]

    def uploads(self, count: int, *, start: int = 0) -> list[Item]:
        """Return `count` images to upload."""
        return [Item(f"{n:05}", n) for n in range(start, start + count)]

    def wait_for_stored(self, count: int) -> None:
        """Return when at least `count` images are stored."""
        wait_for_stored(self.dependencies.store, count)

    def kill_while_storing(self, worker: Running, *, kills: int, of: int) -> None:
        """Kill the worker `kills` times, evenly spread, while it stores `of` images."""
        for nth in range(1, kills + 1):
            self.wait_for_stored(of * nth // (kills + 2))
            os.kill(worker.pid, signal.SIGKILL)

    def finish(
        self,
        scenario: str,
        accepted: Sequence[Accepted],
        *,
        newest: Mapping[str, int | None] | None = None,
        since: float | None = None,
        within_s: float = 180,
    ) -> Outcomes:
        """Wait until every task has ended, count the outcomes, and add a row to the table.

        `newest` is described at `count_outcomes`. `since` is the end of the fault; the default is now.
        """
        since = monotonic() if since is None else since
        wait_for_ends(self.dependencies, accepted, within_s=within_s)
        seconds = monotonic() - since
        outcomes = count_outcomes(self.dependencies, accepted, newest)
        self.record("fault", {"scenario": scenario} | asdict(outcomes) | {"seconds": f"{seconds:.1f}"})
        return outcomes
