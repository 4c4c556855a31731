"""Sweepers around a worker's dependencies."""

from collections.abc import Callable, Sequence

from common.config import Settings
from common.queue.failures import Failures
from common.queue.host_limits import HostSlots
from common.queue.leases import Leases
from common.queue.stale_tasks import StaleTasks
from common.wiring import Dependencies, host_limit
from workers.host_limiter import HostLimiter
from workers.retention import Retention
from workers.sweeper import Sweeper


def make_sweeper(
    parts: Dependencies, send: Callable[[Sequence[str], str, int], None], *, lost_after_s: float
) -> Sweeper:
    """Return a sweeper that sends task ids, their queue and a timestamp to `send`."""
    return Sweeper(
        parts.redis,
        StaleTasks(parts.redis),
        Leases(parts.redis),
        send,
        host_limiter=HostLimiter(HostSlots(parts.redis, host_limit(Settings())), send),
        retention=Retention(parts.redis, parts.ledger, Failures(parts.redis), parts.store, parts.uploads, 60),
        every_s=30,
        lost_after_s=lost_after_s,
        batch=1000,
    )
