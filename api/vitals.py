"""What the service depends on, asked in the background: nobody waits long for what is silent."""

from functools import partial

from redis import Redis

from common.probes import Probe
from common.queue import figures
from common.queue.figures import Figures
from common.queue.ledger import Ledger
from common.store.base import Health, Store


class Vitals:
    """Whether store and Redis answer, and what Redis knows."""

    def __init__(self, store: Store, ledger: Ledger, redis: Redis) -> None:
        self.store: Probe[Health] = Probe(store.health)
        self.queue: Probe[None] = Probe(ledger.check)
        self.figures: Probe[Figures] = Probe(partial(figures.read, redis))
