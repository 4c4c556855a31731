"""The Celery app and its settings; the composition root of the queue door."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIServer

from celery import Celery
from celery.signals import setup_logging, worker_init, worker_shutdown, worker_shutting_down

from common.config import Settings
from common.net.fetch import Fetcher
from common.queue.broker import queue_settings
from common.queue.callbacks import LEASED_LONGER_S, Outbox
from common.queue.decode_attempts import DecodeAttempts
from common.queue.failures import Failures
from common.queue.heartbeats import Heartbeats
from common.queue.host_limits import HostSlots
from common.queue.jobs import ADD_TASK, SENT_HEADER
from common.queue.leases import Leases
from common.queue.stale_tasks import StaleTasks
from common.store.preparing import prepare_soon
from common.telemetry import tracing
from common.wiring import Parts, host_limit, wire
from workers import tasks
from workers.chunks import Chunks
from workers.events import EventsOnceASecond
from workers.heartbeat import Heartbeat
from workers.hosts import Hosts
from workers.instrumentation import Instrumentation
from workers.pipeline import Pipeline
from workers.settlement import Settlement
from workers.stopping import end_within
from workers.sweeper import Sweeper
from workers.tidying import Tidying
from workers.turns import TurnsOfAWorker
from workers.webhooks import MOST_AT_ONCE, Deliverer
from workers.writer import Writer

log = logging.getLogger(__name__)

LONGEST_PATIENCE_S = 120.0
# Sweeps in one visibility time-out.
SWEEPS = 10

WORKER_SETTINGS: dict[str, Any] = {
    # A message is acknowledged after its picture is stored, and comes back when its worker dies.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # Hold no more than can be worked on; what waits, waits where every worker can take it.
    "worker_prefetch_multiplier": 1,
    # After a lost connection the prefetch count would shrink to what runs, and grow back by one an answer.
    "worker_enable_prefetch_count_reduction": False,
    # A broker that is away for an hour is no reason to give up.
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
    # Nor is one that cannot write for a while: a full disk, a failover.
    "broker_channel_error_retry": True,
    # flower shows what goes on from these.
    "worker_send_task_events": True,
}


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The deliverer and what it sends by."""

    deliverer: Deliverer
    fetcher: Fetcher

    def close(self) -> None:
        """End both."""
        self.deliverer.close()
        self.fetcher.close()


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a worker process holds open."""

    parts: Parts
    writer: Writer
    pipeline: Pipeline
    chunks: Chunks
    sweeper: Sweeper
    webhooks: Webhooks | None
    heartbeat: Heartbeat
    metrics: WSGIServer | None

    def close(self) -> None:
        """Write what waits, then give everything back."""
        self.heartbeat.close()
        if self.webhooks is not None:
            self.webhooks.close()
        self.sweeper.close()
        self.chunks.close()
        self.writer.close()
        # Last, so that the results of the last tasks can be scraped.
        if self.metrics is not None:
            self.metrics.shutdown()
            self.metrics.server_close()
        self.parts.close()


def create_app(settings: Settings) -> Celery:
    """Return the Celery app of a worker; it opens its connections when the worker starts, not before."""
    app = Celery("match", set_as_current=False)
    app.conf.update(queue_settings(settings.redis_url) | WORKER_SETTINGS)
    app.steps["consumer"].add(EventsOnceASecond)
    runtime: list[Runtime] = []
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        **taking_options(settings),
        "queue_order_strategy": TurnsOfAWorker(lambda: bool(runtime) and runtime[0].chunks.is_full()),
    }
    tasks.register(app, lambda: runtime[0].pipeline, lambda: runtime[0].chunks)

    @setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def leave_the_log_alone(**_: object) -> None:
        """Where somebody takes this signal, Celery sets up no handlers of its own: ours stand before it starts."""

    @worker_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def start(**_: object) -> None:
        runtime.append(open_runtime(app, settings))

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def hurry(**_: object) -> None:
        end_within(settings.stop_within_s)
        runtime[0].chunks.hurry()
        runtime[0].writer.hurry()
        if runtime[0].webhooks is not None:
            runtime[0].webhooks.deliverer.hurry()

    @worker_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
    def stop(**_: object) -> None:
        runtime.pop().close()

    return app


def taking_options(settings: Settings) -> dict[str, Any]:
    """Return those of the transport's options that concern who takes messages from the queue."""
    return {
        # A message whose worker died comes back after this long; every task must end sooner.
        "visibility_timeout": settings.visibility_timeout_s,
        # Look for such messages this often (seconds), one look a process at a time.
        "unacked_restore_interval": min(5.0, settings.visibility_timeout_s / 10),
        "unacked_restore_throttle": 1,
        # Whoever is killed while it looks keeps the others from looking for so long: kombu's default is 300 s.
        "unacked_mutex_expire": min(10.0, settings.visibility_timeout_s / 4),
    }


def patience_s(settings: Settings) -> float:
    """Return after how long a message of many tasks begins no more of them, so that it ends before it comes again."""
    return min(LONGEST_PATIENCE_S, 0.8 * (settings.visibility_timeout_s - settings.longest_task_s))


def open_runtime(app: Celery, settings: Settings) -> Runtime:
    """Put a worker's parts together and start its threads."""
    tracing.configure(settings, service="match-worker")
    parts = wire(settings)
    prepare_soon(parts.store)
    decode_attempts = DecodeAttempts(parts.redis)
    settlement = Settlement(parts.ledger, parts.uploads, failed_keep_s=settings.failed_keep_s)
    instrumentation = Instrumentation()
    writer = Writer(
        parts.store,
        settlement,
        decode_attempts,
        most=settings.bulk_records,
        linger_s=settings.bulk_linger_s,
        hold_s=settings.store_hold_s,
        instrumentation=instrumentation,
    )

    def send(task_ids: Sequence[str], queue: str, at: int) -> None:
        for task_id in task_ids:
            app.send_task(ADD_TASK, args=(task_id,), queue=queue, headers={SENT_HEADER: at})

    hosts = Hosts(HostSlots(parts.redis, host_limit(settings)), send)
    pipeline = Pipeline(
        ledger=parts.ledger,
        decode_attempts=decode_attempts,
        uploads=parts.uploads,
        fetcher=parts.fetcher,
        slot=parts.slot,
        limits=parts.limits,
        writer=writer,
        settlement=settlement,
        hosts=hosts,
        instrumentation=instrumentation,
    )
    tidying = Tidying(
        parts.redis, parts.ledger, Failures(parts.redis), parts.store, parts.uploads, settings.failed_keep_s
    )
    sweeper = Sweeper(
        parts.redis,
        StaleTasks(parts.redis),
        Leases(parts.redis),
        send,
        hosts=hosts,
        tidying=tidying,
        every_s=settings.visibility_timeout_s / SWEEPS,
        lost_after_s=settings.lost_after_s,
        batch=settings.sweep_batch,
    )
    sweeper.start()
    chunks = Chunks(pipeline.run, send, threads=settings.worker_threads, patience_s=patience_s(settings))
    heartbeat = Heartbeat(Heartbeats(parts.redis))
    heartbeat.start()
    metrics = instrumentation.serve(settings.worker_metrics_host.strip("[]"), settings.worker_metrics_port)
    return Runtime(parts, writer, pipeline, chunks, sweeper, open_webhooks(parts, settings), heartbeat, metrics)


def open_webhooks(parts: Parts, settings: Settings) -> Webhooks | None:
    """Begin to deliver callbacks, where there are secrets to sign them by."""
    if not settings.webhook_secrets:
        return None
    # Its connections are not those of downloads: a receiver that hangs holds up no picture.
    fetcher = Fetcher(
        max_bytes=0, timeout_s=settings.webhook_timeout_s, allow=settings.fetch_allow, pool_size=MOST_AT_ONCE
    )
    outbox = Outbox(parts.redis, lease_s=settings.webhook_timeout_s + LEASED_LONGER_S, keep_s=settings.webhook_keep_s)
    deliverer = Deliverer(outbox, fetcher.post, secrets=settings.webhook_secrets)
    deliverer.start()
    return Webhooks(deliverer, fetcher)
