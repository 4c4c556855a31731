"""Checks of Redis and the store, run in the background so that a caller waits a bounded time."""

from functools import partial

from redis import Redis

from common.probes import Probe
from common.queue.ledger import Ledger
from common.queue.stats import QueueStats, read_stats
from common.store.base import Health, Store


class DependencyChecks:
    """A probe for each: the store's health and its images, Redis, and the queue's statistics in Redis."""

    def __init__(self, store: Store, ledger: Ledger, redis: Redis) -> None:
        self.store: Probe[Health] = Probe(store.health)
        self.redis: Probe[None] = Probe(ledger.check)
        self.images: Probe[int] = Probe(lambda: sum(each.images for each in store.collections()))
        self.queue_stats: Probe[QueueStats] = Probe(partial(read_stats, redis))
