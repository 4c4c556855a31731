"""`python -m common.store.readd`: adds images without local features again, from their source URLs.

Images of earlier versions have none, or those of another version. Each is added through the queue, with its filepath,
metadata and collection. It is stored only if no other request has replaced or deleted the image meanwhile.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from time import sleep

from common import command_line
from common.config import Settings
from common.errors import FetchError
from common.images.local_features.features import LocalFeatures
from common.net.fetch import Fetcher
from common.queue.host_limits import HostLimit
from common.queue.items import AddItem, EnqueueResult
from common.queue.jobs import BATCH_QUEUE
from common.queue.ledger import Ledger
from common.queue.publisher import Publisher
from common.queue.sequence import SequenceNumbers
from common.queue.tasks import CLOSED_STATES, QueuedTask, State
from common.redis.client import connect
from common.store.base import Record, Selection, Store
from common.store.factory import open_store
from common.store.resumable import FAILED, UNUSABLE_SETTINGS, ResumableCommand

COMMAND = ResumableCommand("readd")
# Images that are in the queue at once: the adds of clients wait behind few of them.
CHUNK = 200
POLL_S = 0.5
# Not empty, so that the ledger finds the tasks of an earlier run.
FINGERPRINT = "readd"
CURRENT, WITHOUT_URL = "with local features", "without a URL"


class Readding:
    """A run over collections; `tally` counts the images by outcome.

    `host_of` returns the host of a URL, or raises FetchError for one that is never fetched.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        publisher: Publisher,
        *,
        host_of: Callable[[str], str],
        report: Callable[[str], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._publisher = publisher
        self._host_of = host_of
        self._report = report
        self.tally: Counter[str] = Counter()

    def run(self, collection: str, *, until: int) -> Iterator[str]:
        """Add images of a collection again whose sequence number is below `until`; yield filepaths without a URL."""
        pending: list[AddItem] = []
        for record in self._records(collection, until):
            if LocalFeatures.decode_comparable(record.features) is not None:
                self.tally[CURRENT] += 1
            elif record.url is None:
                self.tally[WITHOUT_URL] += 1
                yield record.filepath
            else:
                pending.append(item_of(record, record.url))
            if len(pending) == CHUNK:
                self._add(pending, collection)
                pending = []
                self._report(f"{collection}: {self.text()} so far")
        self._add(pending, collection)
        self._report(f"{collection}: {self.text()}")

    def text(self) -> str:
        """Return the tally as one line."""
        return ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.tally.items())) or "no images"

    @property
    def is_complete(self) -> bool:
        """Whether no image failed; those without a URL cannot be added again."""
        return not any(outcome.startswith("failed") for outcome in self.tally)

    def _records(self, collection: str, until: int) -> Iterator[Record]:
        after = 0
        while True:
            page = self._store.filepaths_after(after, limit=CHUNK, selection=Selection(collection=collection))
            records = self._store.records(page.filepaths, collection=collection)
            # A record that was replaced meanwhile follows on a later page, or is newer than this run.
            yield from (record for record in records.values() if after < record.seq < until)
            after = page.after
            if len(page.filepaths) < CHUNK or after >= until:
                return

    def _add(self, items: Sequence[AddItem], collection: str) -> None:
        """Enqueue the items, wait until their tasks have ended, and count them."""
        items = [item for item in items if self._is_fetched(item)]
        while items:
            results = self._ledger.enqueue(items, queue=BATCH_QUEUE, collection=collection)
            accepted = [result for result in results if isinstance(result, EnqueueResult)]
            self._publish(accepted)
            self._wait([result.task.id for result in accepted])
            # The ledger was full: the others follow.
            items = [item for item, result in zip(items, results, strict=True) if not isinstance(result, EnqueueResult)]
            if items:
                sleep(POLL_S)

    def _is_fetched(self, item: AddItem) -> bool:
        try:
            item.host = self._host_of(item.url or "")
        except FetchError as error:
            self.tally[f"failed: {error.code}"] += 1
            return False
        return True

    def _publish(self, results: Sequence[EnqueueResult]) -> None:
        """Send new tasks, and those that failed in an earlier run again."""
        new = [result for result in results if not result.is_replay]
        failed = [result.task.id for result in results if result.is_replay and result.task.state is State.FAILED]
        again = [one for one in self._ledger.retry(failed) if isinstance(one, QueuedTask)]
        for queue in {result.queue for result in new}:
            self._publisher.send([result.task for result in new if result.queue == queue], queue=queue)
        self._publisher.send_again(again)

    def _wait(self, task_ids: Sequence[str]) -> None:
        """Wait until the tasks have ended, and count them by their states."""
        left = list(task_ids)
        while left:
            existing = self._ledger.existing(left)
            ended = {task_id: result.task for task_id, result in existing.items() if result.task.state in CLOSED_STATES}
            for task in ended.values():
                self.tally[f"failed: {task.code}" if task.state is State.FAILED else task.state.value] += 1
            # The record of a task that ended may have expired.
            left = [task_id for task_id in left if task_id in existing and task_id not in ended]
            if left:
                sleep(POLL_S)


def item_of(record: Record, url: str) -> AddItem:
    """Return the add that replaces a record, always the same task."""
    name = f"readd {record.collection} {record.seq} {record.filepath}".encode()
    return AddItem(
        filepath=record.filepath,
        collection=record.collection,
        url=url,
        metadata=record.metadata,
        task_id=hashlib.blake2b(name, digest_size=16).hexdigest(),
        fingerprint=FINGERPRINT,
        replaces=record.seq,
    )


def main() -> int:
    """Add images again; return the exit status."""
    description = "Add images without local features again, from their source URLs. Filepaths without one are printed."
    parser = command_line.parser("common.store.readd", description)
    parser.add_argument("--collection", metavar="NAME", help="only the images of this collection")
    collection = parser.parse_args().collection
    return COMMAND.run(lambda settings: _run(settings, collection))


def _run(settings: Settings, collection: str | None) -> int:
    if not settings.local_features:
        COMMAND.report("MATCH_LOCAL_FEATURES is false: images would be stored without local features again")
        return UNUSABLE_SETTINGS
    with ExitStack() as opened:
        store = opened.enter_context(closing(open_store(settings)))
        redis = opened.enter_context(closing(connect(settings.redis_url)))
        publisher = opened.enter_context(closing(Publisher(settings.redis_url)))
        fetcher = opened.enter_context(
            Fetcher(max_bytes=0, timeout_s=settings.fetch_timeout_s, allow=settings.fetch_allow)
        )
        ledger = Ledger(
            redis,
            max_open=settings.max_backlog,
            finished_keep_s=settings.finished_keep_s,
            failed_keep_s=settings.failed_keep_s,
            host_limit=HostLimit(slots=settings.fetch_per_host, lease_s=0),
        )
        readding = Readding(
            store, ledger, publisher, host_of=lambda url: fetcher.validate(url).host, report=COMMAND.report
        )
        until = SequenceNumbers(redis).next()
        names = [collection] if collection else [one.name for one in store.collections()]
        for name in names:
            for filepath in readding.run(name, until=until):
                print(f"{name}\t{filepath}", flush=True)  # noqa: T201 - the output of a command
        return 0 if readding.is_complete else FAILED


if __name__ == "__main__":
    sys.exit(main())
