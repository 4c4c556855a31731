"""The Celery app and its settings: the composition root of the worker."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIServer

from celery import Celery
from celery.signals import setup_logging, worker_init, worker_shutdown, worker_shutting_down

from common.config import Settings
from common.decoding.pool import DecoderPool
from common.net.fetch import Fetcher
from common.queue.batches import Batches
from common.queue.broker import queue_settings
from common.queue.callbacks import LEASE_MARGIN_S, Outbox
from common.queue.deferred_tasks import DeferredTasks
from common.queue.deleted_collections import DeletedCollections
from common.queue.deleted_images import DeletedImages
from common.queue.failures import Failures
from common.queue.heartbeats import Heartbeats
from common.queue.host_limits import HostSlots
from common.queue.jobs import ADD_TASK, BATCH_QUEUES, ENQUEUED_AT_HEADER
from common.queue.leases import Leases
from common.queue.pause import Pause
from common.queue.stale_tasks import StaleTasks
from common.queue.stats import read_stats
from common.queue.transport import WORKER_OPTION
from common.queue.unacked import Unacked
from common.store.preparing import prepare_in_background
from common.telemetry import tracing
from common.wiring import Dependencies, build_dependencies, decoder_limits, host_limit
from workers import tasks
from workers.chunks import Chunks
from workers.dead_workers import DeadWorkers
from workers.deletion import Deletion
from workers.events import EventsOnceASecond
from workers.finishing import TaskFinisher
from workers.heartbeat import Heartbeat, new_worker_name
from workers.host_limiter import HostLimiter
from workers.instrumentation import Instrumentation
from workers.orphaned_thumbnails import OrphanedThumbnails
from workers.pause import PauseWatch
from workers.pipeline import Pipeline
from workers.progress import Progress
from workers.queue_order import QueueOrderStrategy
from workers.retention import Retention
from workers.scheduler import Scheduler
from workers.stopping import end_within
from workers.sweeper import Sweeper
from workers.webhooks import MAX_DELIVERIES, Deliverer
from workers.writer import Writer

log = logging.getLogger(__name__)

# Maximum time during which a message of many tasks begins tasks.
MAX_BEGIN_WITHIN_S = 120.0
# Images that a worker decodes at once. Two store more images a second than one (`benchmarks/ingest.py`), and an image
# that takes long stops only half of the others.
DECODERS = 2
# Number of sweeps per visibility time-out.
SWEEPS = 10

WORKER_SETTINGS: dict[str, Any] = {
    # A message is acknowledged after its image is stored, and redelivered if its worker dies.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # Reserve one message per thread; the others stay in the queue, where every worker can take them.
    "worker_prefetch_multiplier": 1,
    # After a lost connection, Celery would reduce the prefetch count, and raise it again by one per message.
    "worker_enable_prefetch_count_reduction": False,
    # Never give up on an unavailable broker.
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
    # Retry too if the broker cannot write for a while: a full disk, a failover.
    "broker_channel_error_retry": True,
    # For flower.
    "worker_send_task_events": True,
}


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The deliverer and its HTTP client."""

    deliverer: Deliverer
    fetcher: Fetcher

    def close(self) -> None:
        """Close both."""
        self.deliverer.close()
        self.fetcher.close()


@dataclass(frozen=True, slots=True)
class Runtime:
    """The open resources of a worker process.

    `chunks` are those of the batch queues. `single_chunks` have threads of their own: single adds wait for no batch.
    """

    dependencies: Dependencies
    decoder: DecoderPool
    writer: Writer
    pipeline: Pipeline
    chunks: Chunks
    single_chunks: Chunks
    pause: PauseWatch
    progress: Progress
    sweeper: Sweeper
    scheduler: Scheduler
    dead_workers: DeadWorkers
    webhooks: Webhooks | None
    heartbeat: Heartbeat
    metrics: WSGIServer | None

    def chunks_of(self, queue: str) -> Chunks:
        """Return the chunks of a queue."""
        return self.chunks if queue in BATCH_QUEUES else self.single_chunks

    def close(self) -> None:
        """Write the pending records, then close everything."""
        self.dead_workers.close()
        self.heartbeat.close()
        self.pause.close()
        if self.webhooks is not None:
            self.webhooks.close()
        self.scheduler.close()
        self.sweeper.close()
        self.chunks.close()
        self.single_chunks.close()
        self.writer.close()
        self.progress.close()
        self.decoder.close()
        # After the last task, so that its result can be scraped.
        if self.metrics is not None:
            self.metrics.shutdown()
            self.metrics.server_close()
        self.dependencies.close()


def create_app(settings: Settings) -> Celery:
    """Return the Celery app of a worker; connections are opened when the worker starts."""
    app = Celery("match", set_as_current=False)
    app.conf.update(queue_settings(settings.redis_url) | WORKER_SETTINGS)
    app.steps["consumer"].add(EventsOnceASecond)
    runtime: list[Runtime] = []
    name = new_worker_name()
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        **redelivery_options(settings),
        WORKER_OPTION: name,
        "queue_order_strategy": QueueOrderStrategy(
            lambda: bool(runtime) and runtime[0].chunks.is_full(),
            lambda: bool(runtime) and runtime[0].pause.is_paused,
        ),
    }

    def chunks_of(queue: str) -> Chunks:
        return runtime[0].chunks_of(queue)

    tasks.register(app, lambda: runtime[0].pipeline, chunks_of)

    def keep_logging(**_: object) -> None:
        """Prevent Celery from configuring logging: it does not if this signal has a receiver."""

    def start(**_: object) -> None:
        runtime.append(open_runtime(app, settings, name))

    def begin_shutdown(**_: object) -> None:
        end_within(settings.stop_within_s)
        runtime[0].chunks.begin_shutdown()
        runtime[0].single_chunks.begin_shutdown()
        runtime[0].writer.begin_shutdown()
        runtime[0].pipeline.deletion.begin_shutdown()
        if runtime[0].webhooks is not None:
            runtime[0].webhooks.deliverer.begin_shutdown()

    def stop(**_: object) -> None:
        runtime.pop().close()

    setup_logging.connect(keep_logging, weak=False)
    worker_init.connect(start, weak=False)
    worker_shutting_down.connect(begin_shutdown, weak=False)
    worker_shutdown.connect(stop, weak=False)
    return app


def redelivery_options(settings: Settings) -> dict[str, Any]:
    """Return the transport's options for redelivery."""
    return {
        # Time after which a dead worker's message is redelivered; every task must end earlier.
        "visibility_timeout": settings.visibility_timeout_s,
        # Seconds between two checks for these messages; one check at a time in a process.
        "unacked_restore_interval": min(5.0, settings.visibility_timeout_s / 10),
        "unacked_restore_throttle": 1,
        # Expiry of the lock of a check, if its process is killed; kombu's default is 300 s.
        "unacked_mutex_expire": min(10.0, settings.visibility_timeout_s / 4),
    }


def begin_within_s(settings: Settings) -> float:
    """Return the time during which a message of many tasks begins tasks, so that it ends before it is redelivered."""
    return min(MAX_BEGIN_WITHIN_S, 0.8 * (settings.visibility_timeout_s - settings.longest_task_s))


def open_runtime(app: Celery, settings: Settings, name: str) -> Runtime:
    """Build the dependencies of the worker with this name, and start its threads."""
    tracing.configure(settings, service="match-worker")
    dependencies = build_dependencies(settings)
    prepare_in_background(dependencies.store)
    finisher = TaskFinisher(dependencies.ledger, dependencies.uploads, failed_keep_s=settings.failed_keep_s)
    progress = Progress(lambda: read_stats(dependencies.redis).waiting)
    progress.start()
    instrumentation = Instrumentation(progress.count)
    pause = PauseWatch(Pause(dependencies.redis))
    pause.start()
    decoder = DecoderPool(
        decoder_limits(settings),
        processes=DECODERS,
        # All images of a worker are equal: its threads are the limit of those that wait.
        per_client=DECODERS,
        queue=sys.maxsize,
        wait_s=settings.decode_timeout_s,
        on_end=instrumentation.count_decoder_end,
    )
    writer = Writer(
        dependencies.store,
        finisher,
        max_records=settings.bulk_records,
        linger_s=settings.bulk_linger_s,
        hold_s=settings.store_hold_s,
        thumbnails=dependencies.thumbnails,
        instrumentation=instrumentation,
    )

    def send(task_ids: Sequence[str], queue: str, at: int) -> None:
        for task_id in task_ids:
            app.send_task(ADD_TASK, args=(task_id,), queue=queue, headers={ENQUEUED_AT_HEADER: at})

    deferred = DeferredTasks(dependencies.redis)
    host_limiter = HostLimiter(HostSlots(dependencies.redis, host_limit(settings)), send)
    pipeline = Pipeline(
        ledger=dependencies.ledger,
        uploads=dependencies.uploads,
        fetcher=dependencies.fetcher,
        budget=dependencies.budget,
        max_image_bytes=settings.max_image_bytes,
        decoder=decoder,
        writer=writer,
        finisher=finisher,
        host_limiter=host_limiter,
        deletion=Deletion(
            DeletedCollections(dependencies.redis),
            DeletedImages(dependencies.redis),
            deferred,
            Batches(dependencies.redis),
            dependencies.store,
        ),
        keep_source_url=settings.keep_source_url,
        thumbnails=dependencies.thumbnails is not None,
        local_features=settings.local_features,
        instrumentation=instrumentation,
        check_pause=pause.check,
    )
    retention = Retention(
        dependencies.redis,
        dependencies.ledger,
        Failures(dependencies.redis),
        dependencies.store,
        dependencies.uploads,
        settings.failed_keep_s,
        orphaned_thumbnails(dependencies),
    )
    sweeper = Sweeper(
        dependencies.redis,
        StaleTasks(dependencies.redis),
        Leases(dependencies.redis),
        send,
        host_limiter=host_limiter,
        retention=retention,
        every_s=settings.visibility_timeout_s / SWEEPS,
        lost_after_s=settings.lost_after_s,
        batch=settings.sweep_batch,
    )
    sweeper.start()
    scheduler = Scheduler(deferred, host_limiter)
    scheduler.start()

    def open_chunks() -> Chunks:
        threads = settings.worker_threads
        return Chunks(pipeline.run, send, threads=threads, begin_within_s=begin_within_s(settings))

    heartbeats = Heartbeats(dependencies.redis)
    heartbeat = Heartbeat(heartbeats, name)
    heartbeat.start()
    dead_workers = DeadWorkers(heartbeats, Unacked(dependencies.redis), sweeper.sweep_after_death, own_name=name)
    dead_workers.start()
    metrics = instrumentation.serve(settings.worker_metrics_host.strip("[]"), settings.worker_metrics_port)
    webhooks = open_webhooks(dependencies, settings)
    return Runtime(
        dependencies=dependencies,
        decoder=decoder,
        writer=writer,
        pipeline=pipeline,
        chunks=open_chunks(),
        single_chunks=open_chunks(),
        pause=pause,
        progress=progress,
        sweeper=sweeper,
        scheduler=scheduler,
        dead_workers=dead_workers,
        webhooks=webhooks,
        heartbeat=heartbeat,
        metrics=metrics,
    )


def orphaned_thumbnails(dependencies: Dependencies) -> OrphanedThumbnails | None:
    """Return the retention of thumbnails, None where none are kept."""
    if dependencies.thumbnails is None:
        return None
    return OrphanedThumbnails(dependencies.store, dependencies.thumbnails)


def open_webhooks(dependencies: Dependencies, settings: Settings) -> Webhooks | None:
    """Start the delivery of callbacks; return None without secrets to sign them."""
    if not settings.webhook_secrets:
        return None
    # A separate HTTP client, so that a receiver that hangs does not delay downloads.
    fetcher = Fetcher(
        max_bytes=0,
        timeout_s=settings.webhook_timeout_s,
        allow=settings.fetch_allow,
        user_agent=settings.fetch_user_agent,
        pool_size=MAX_DELIVERIES,
    )
    outbox = Outbox(
        dependencies.redis, lease_s=settings.webhook_timeout_s + LEASE_MARGIN_S, keep_s=settings.webhook_keep_s
    )
    deliverer = Deliverer(outbox, fetcher.post, secrets=settings.webhook_secrets)
    deliverer.start()
    return Webhooks(deliverer, fetcher)
