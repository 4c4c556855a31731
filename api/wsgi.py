"""The composition root of the API: from settings to open dependencies to the Flask app."""

import atexit
from collections.abc import Callable
from contextlib import AbstractContextManager

from flask import Flask

from api.access.keys import Keyring
from api.app import create_app
from api.concurrency import ConcurrencyLimit
from api.dependency_checks import DependencyChecks
from api.metrics import Metrics
from api.rate_limits import ANSWER_WITHIN_S, RateLimiter
from api.services import Services
from api.usage import UsageRecorder
from api.use_cases.add_images import AddImages
from api.use_cases.delete_images import DeleteImages
from api.use_cases.delete_selected import DeleteSelected
from api.use_cases.local_features import LocalFeatureLimits
from api.use_cases.manage_batches import ManageBatches
from api.use_cases.manage_collections import ManageCollections
from api.use_cases.manage_tasks import ManageTasks
from api.use_cases.patch_images import PatchImages
from api.use_cases.search_images import SearchImages
from api.use_cases.wait_for_tasks import TaskWaiter
from common.config import Settings
from common.decoding.pool import DecoderPool
from common.queue.batches import Batches
from common.queue.expected_images import ExpectedImages
from common.queue.leases import Leases
from common.queue.pause import Pause
from common.queue.publisher import Publisher
from common.queue.sequence import SequenceNumbers
from common.queue.task_pages import TaskPages
from common.queue.usage import UsageCounts
from common.redis.client import connect
from common.store.base import Store
from common.store.preparing import prepare_in_background
from common.telemetry import tracing
from common.wiring import build_dependencies, decoder_limits

# Two, so that an image that takes long stops no other client's searches.
DECODERS = 2
# Maximum time that a search waits for a decoder. An image takes milliseconds.
DECODER_WAIT_S = 5.0


def compose(settings: Settings, keyring: Keyring | None) -> Flask:
    """Return the app; the store is prepared in the background, so that the API answers while it is unavailable."""
    tracing.configure(settings, service="match-api")
    dependencies = build_dependencies(settings)
    prepare_in_background(dependencies.store)
    publisher = Publisher(settings.redis_url)
    checks = DependencyChecks(dependencies.store, dependencies.ledger, dependencies.redis)
    metrics = Metrics(checks)
    collections = ManageCollections(
        dependencies.store, dependencies.ledger, publisher, max_collections=settings.max_collections
    )
    searches = settings.api_threads // 2
    decoder = DecoderPool(
        decoder_limits(settings),
        processes=DECODERS,
        # A client whose images take long waits for its own images only.
        per_client=1,
        queue=max(1, searches // 2 - 1),
        wait_s=DECODER_WAIT_S,
        on_end=metrics.count_decoder_end,
    )
    batches, task_pages = Batches(dependencies.redis), TaskPages(dependencies.redis)
    manage_tasks = ManageTasks(dependencies.ledger, dependencies.uploads, publisher)
    # As for rate limits: a slow Redis delays requests little.
    usage = UsageRecorder(UsageCounts(connect(settings.redis_url, answer_within_s=ANSWER_WITHIN_S)))
    atexit.register(usage.flush)
    services = Services(
        settings=settings,
        store=dependencies.store,
        thumbnails=dependencies.thumbnails,
        ledger=dependencies.ledger,
        task_pages=task_pages,
        batches=batches,
        leases=Leases(dependencies.redis),
        pause=Pause(dependencies.redis),
        add_images=AddImages(
            admission=dependencies.admission,
            ledger=dependencies.ledger,
            uploads=dependencies.uploads,
            publisher=publisher,
            collections=collections,
            fetcher=dependencies.fetcher,
            budget=dependencies.budget,
        ),
        delete_images=DeleteImages(SequenceNumbers(dependencies.redis), dependencies.store),
        delete_selected=DeleteSelected(dependencies.store, dependencies.ledger, batches, publisher),
        patch_images=PatchImages(
            SequenceNumbers(dependencies.redis),
            ExpectedImages(dependencies.redis),
            dependencies.store,
        ),
        collections=collections,
        manage_tasks=manage_tasks,
        manage_batches=ManageBatches(batches, task_pages, manage_tasks),
        search_images=SearchImages(
            fetcher=dependencies.fetcher,
            decoder=decoder,
            store=dependencies.store,
            budget=dependencies.budget,
            local_features=local_feature_limits(settings, dependencies.store),
            search_slot=_slots(searches),
            download_slot=_slots(settings.download_threads),
        ),
        task_waiter=TaskWaiter(dependencies.redis, dependencies.ledger),
        # Half of the threads run searches, and half of these use local features at most. A quarter of the threads
        # waits for tasks, and an eighth runs adds of many images. The last eighth is always free for short requests.
        wait_limit=ConcurrencyLimit(settings.api_threads // 4),
        batch_limit=ConcurrencyLimit(max(1, settings.api_threads // 8)),
        # A batch of searches has a slot of the searches too. So one client's batches leave the others to its searches.
        search_batch_limit=ConcurrencyLimit(max(1, searches // 4), per_client=1),
        dependency_checks=checks,
        metrics=metrics,
        usage=usage,
    )
    return create_app(services, keyring=keyring, rate_limiter=build_rate_limiter(settings))


def local_feature_limits(settings: Settings, store: Store) -> LocalFeatureLimits:
    """Return the limits of searches by local features; the other searches always find slots free of them."""
    searches = settings.local_features_searches or max(1, settings.api_threads // 4)
    return LocalFeatureLimits(
        store,
        enabled=settings.local_features,
        max_images=settings.local_features_max_images,
        slot=_slots(searches),
    )


def _slots(limit: int) -> Callable[[str], AbstractContextManager[None]]:
    """Return the slots of a concurrency limit, three quarters of them for one client."""
    return ConcurrencyLimit(limit, per_client=max(1, limit - limit // 4)).acquire


def build_rate_limiter(settings: Settings) -> RateLimiter | None:
    """Return the rate limiter, or None if the settings have no limit."""
    if settings.rate_limit is None:
        return None
    # A separate Redis client with a short time-out: a slow Redis delays requests little.
    return RateLimiter(settings.rate_limit, connect(settings.redis_url, answer_within_s=ANSWER_WITHIN_S))
