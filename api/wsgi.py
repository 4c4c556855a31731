"""The composition root of the HTTP door: settings → parts → create_app."""

from flask import Flask

from api.access.keys import Keyring
from api.app import create_app
from api.dependency_checks import DependencyChecks
from api.gate import Gate
from api.metrics import Metrics
from api.pictures import Pictures
from api.rates import ANSWER_WITHIN_S, Rates
from api.services import Services
from api.work.intake import Intake
from api.work.publisher import Publisher
from api.work.recovery import Recovery
from api.work.waiting import Waiters
from common.config import Settings
from common.queue.leases import Leases
from common.queue.sequence import SequenceNumbers
from common.queue.task_pages import TaskPages
from common.redis.client import connect
from common.store.preparing import prepare_soon
from common.telemetry import tracing
from common.wiring import wire


def compose(settings: Settings, keyring: Keyring | None) -> Flask:
    """Put the app together; the store is prepared in the background, so that the API answers while it is away."""
    tracing.configure(settings, service="match-api")
    parts = wire(settings)
    prepare_soon(parts.store)
    publisher = Publisher(settings.redis_url)
    checks = DependencyChecks(parts.store, parts.ledger, parts.redis)
    services = Services(
        settings=settings,
        store=parts.store,
        ledger=parts.ledger,
        task_pages=TaskPages(parts.redis),
        sequence=SequenceNumbers(parts.redis),
        leases=Leases(parts.redis),
        intake=Intake(
            admission=parts.admission,
            ledger=parts.ledger,
            uploads=parts.uploads,
            publisher=publisher,
            fetcher=parts.fetcher,
        ),
        recovery=Recovery(parts.ledger, parts.uploads, publisher),
        pictures=Pictures(fetcher=parts.fetcher, slot=parts.slot, limits=parts.limits, store=parts.store),
        waiters=Waiters(parts.redis, parts.ledger),
        # A quarter of the threads may search and a quarter wait for their turn, a quarter may wait for tasks, and an
        # eighth may add many pictures at once; the last eighth is always free for what is short.
        searching=Gate(settings.api_threads // 4, patience_s=1.0),
        waiting=Gate(settings.api_threads // 4, patience_s=0),
        batching=Gate(max(1, settings.api_threads // 8), patience_s=0),
        dependency_checks=checks,
        metrics=Metrics(checks),
    )
    return create_app(services, keyring=keyring, rates=rates_of(settings))


def rates_of(settings: Settings) -> Rates | None:
    """Return the limits that the settings ask for."""
    if settings.rate_limit is None:
        return None
    # A client of their own: no request waits for a Redis that is slow longer than it takes to do without.
    return Rates(settings.rate_limit, connect(settings.redis_url, answer_within_s=ANSWER_WITHIN_S))
