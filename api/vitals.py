"""What the service depends on, asked in the background: nobody waits long for what is silent."""

from redis import Redis

from common import figures
from common.figures import Figures
from common.ledger import Ledger
from common.probes import Probe
from common.store.base import Health, Store


class Vitals:
    """Whether store and Redis answer, and what Redis knows."""

    def __init__(self, store: Store, ledger: Ledger, redis: Redis) -> None:
        self._store = store
        self._ledger = ledger
        self._redis = redis
        self.store: Probe[Health] = Probe(self._health)
        self.queue: Probe[None] = Probe(self._check)
        self.figures: Probe[Figures] = Probe(self._figures)

    def _health(self) -> Health:
        return self._store.health()

    def _check(self) -> None:
        self._ledger.check()

    def _figures(self) -> Figures:
        return figures.read(self._redis)
