"""The composition root of the HTTP door: settings → parts → create_app."""

from flask import Flask

from api.access.keys import Keyring
from api.app import create_app
from api.gate import Gate
from api.metrics import Metrics
from api.pictures import Pictures
from api.rates import ANSWER_WITHIN_S, Rates
from api.services import Services
from api.vitals import Vitals
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
from common.telemetry.tracing import open_tracing
from common.wiring import build_dependencies


def compose(settings: Settings, keyring: Keyring | None) -> Flask:
    """Put the app together; the store is prepared in the background, so that the API answers while it is away."""
    dependencies = build_dependencies(settings)
    prepare_soon(dependencies.store)
    publisher = Publisher(settings.redis_url)
    tracing = open_tracing(settings.tracing_endpoint, service="match-api")
    vitals = Vitals(dependencies.store, dependencies.ledger, dependencies.redis)
    services = Services(
        settings=settings,
        store=dependencies.store,
        ledger=dependencies.ledger,
        task_pages=TaskPages(dependencies.redis),
        sequence=SequenceNumbers(dependencies.redis),
        leases=Leases(dependencies.redis),
        intake=Intake(
            admission=dependencies.admission,
            ledger=dependencies.ledger,
            uploads=dependencies.uploads,
            publisher=publisher,
            fetcher=dependencies.fetcher,
            tracing=tracing,
        ),
        recovery=Recovery(dependencies.ledger, dependencies.uploads, publisher),
        pictures=Pictures(
            fetcher=dependencies.fetcher, slot=dependencies.slot, limits=dependencies.limits, store=dependencies.store
        ),
        waiters=Waiters(dependencies.redis, dependencies.ledger),
        # A quarter of the threads may search and a quarter wait for their turn, a quarter may wait for tasks, and an
        # eighth may add many pictures at once; the last eighth is always free for what is short.
        searching=Gate(settings.api_threads // 4, patience_s=1.0),
        waiting=Gate(settings.api_threads // 4, patience_s=0),
        batching=Gate(max(1, settings.api_threads // 8), patience_s=0),
        vitals=vitals,
        metrics=Metrics(vitals),
        tracing=tracing,
    )
    return create_app(services, keyring=keyring, rates=rates_of(settings))


def rates_of(settings: Settings) -> Rates | None:
    """Return the limits that the settings ask for."""
    if settings.rate_limit is None:
        return None
    # A client of their own: no request waits for a Redis that is slow longer than it takes to do without.
    return Rates(settings.rate_limit, connect(settings.redis_url, answer_within_s=ANSWER_WITHIN_S))
