"""Adds of discovered images: groups of requests, at most some at once, each noted in the journal."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import Event

from match_cli.discovery import Discovered, Source, Unreadable, is_unchanged
from match_cli.journal import START, Group, Journal, Open, Seen, State, key_of
from match_cli.shrinking import TOO_LARGE, shrink
from match_client import Match, NewImage, Outcome, Task
from match_client.adds import MAX_GROUP_BYTES, MAX_LINES, Form, Item, Options, accept, item_of, new_key
from match_client.client import MAX_IDS
from match_client.results import FEATURELESS
from match_client.sources import Upload, is_url

# A request with files answers when its images are stored, within this time.
WAIT_S = 30.0
FILES_PER_REQUEST = 25
# Groups that wait for a free thread; a group is at most MAX_GROUP_BYTES, or one image.
QUEUED_PER_JOB = 1
# Tasks that are polled in one pass.
POLLED = 500
POLL_INTERVAL_S = 1.0
SHRUNK = "-shrunk"


class Result(StrEnum):
    """The result of one image."""

    STORED = "stored"
    FEATURELESS = "featureless"
    SKIPPED = "skipped"
    ACCEPTED = "accepted"
    FAILED = "failed"
    # It was resumed or named before, and has another result as well.
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of one image; a failure has its code and reason.

    `is_late`: the image was counted before, as accepted by this run or an earlier one.
    """

    source: str
    result: Result
    code: str | None = None
    reason: str = ""
    is_shrunk: bool = False
    is_late: bool = False


@dataclass(slots=True)
class Totals:
    """The number of images by result."""

    results: Counter[Result] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    shrunk: int = 0

    def add(self, report: Report) -> None:
        """Count a result."""
        self.results[report.result] += 1
        self.shrunk += report.is_shrunk
        if report.result is Result.FAILED:
            self.failures[report.code or "unknown"] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a run.

    A file above `max_bytes` is shrunk before it is sent. `is_again`: also images that earlier runs stored. `batch` is
    the id of the batch of all images.
    """

    jobs: int
    max_bytes: int
    is_again: bool = False
    collection: str | None = None
    batch: str | None = None


Sent = Mapping[int, tuple[Outcome, bool]]


class Sender:
    """Sends images and reports each result.

    Only the calling thread uses the journal and reports. `stop` is set on an error: requests that are repeated end.
    """

    def __init__(
        self, match: Match, journal: Journal, settings: Settings, report: Callable[[Report], None], *, stop: Event
    ) -> None:
        self._match = match
        self._stop = stop
        self._journal = journal
        self._settings = settings
        self._report = report
        self._threads = ThreadPoolExecutor(settings.jobs, thread_name_prefix="match-add")
        self._running: dict[Future[Sent], Group] = {}
        self._resumed: set[str] = set()
        # Whether this run has sent images, so that its batch exists.
        self.has_sent = False
        # The images that earlier runs stored, and that the service has no longer.
        self.deleted = 0
        self._pending: dict[Form, list[Source]] = {Form.FORM: [], Form.LINES: []}

    @contextmanager
    def running(self) -> Iterator[None]:
        """End the threads after the `with` block.

        After an error, running requests end, and no other begins. The next run sends the rest: it is in the journal.
        """
        try:
            yield
        except BaseException:
            self._stop.set()
            raise
        finally:
            self._threads.shutdown(wait=True, cancel_futures=True)
            for future, group in self._running.items():
                if not future.cancelled() and future.exception() is None:
                    self._finish(group, future.result())

    def resume(self) -> None:
        """Send the requests again that an earlier run did not finish."""
        for group in self._journal.unfinished():
            self._resumed.add(group.request)
            images = {number: image for number, image in group.images.items() if is_unchanged(image)}
            changed = [key_of(image) for number, image in group.images.items() if number not in images]
            self._journal.forget(changed)
            if images:
                self._submit(Group(group.request, images))

    def put(self, image: Discovered) -> None:
        """Send an image, unless its version is stored; it may wait for others."""
        if isinstance(image, Unreadable):
            report = Report(source=image.source, result=Result.FAILED, code=image.code, reason=image.reason)
            self._report(report)
        elif (seen := self._journal.check(image, is_again=self._settings.is_again)) is Seen.STORED:
            self._report(Report(source=image.source, result=Result.SKIPPED))
        elif seen is Seen.IN_THIS_RUN or self._is_pending(image):
            self._report(Report(source=image.source, result=Result.REPEATED))
        else:
            self.deleted += seen is Seen.DELETED
            form = Form.LINES if is_url(image.source) else Form.FORM
            pending = self._pending[form]
            if pending and sum(one.size for one in pending) + image.size > MAX_GROUP_BYTES:
                self._flush(form)
            self._pending[form].append(image)
            if len(self._pending[form]) >= (MAX_LINES if form is Form.LINES else FILES_PER_REQUEST):
                self._flush(form)

    def _is_pending(self, image: Source) -> bool:
        """Return whether the image was named twice, and waits."""
        return any(key_of(image) == key_of(other) for pending in self._pending.values() for other in pending)

    def finish(self, *, is_waiting: bool) -> None:
        """Send the rest, wait for all requests and, with `is_waiting`, for the tasks of all images."""
        for form in Form:
            self._flush(form)
        while self._running:
            self._collect()
        while self._poll() and is_waiting:
            self._stop.wait(POLL_INTERVAL_S)

    def _flush(self, form: Form) -> None:
        images = self._pending[form]
        if images:
            self._pending[form] = []
            self._submit(Group(new_key(), dict(enumerate(images))))

    def _submit(self, group: Group) -> None:
        """Start a request; wait for another one while too many are running."""
        while len(self._running) >= self._settings.jobs * (1 + QUEUED_PER_JOB):
            self._collect()
        self._journal.sending(group)
        self.has_sent = True
        was_sent = group.request in self._resumed
        self._running[self._threads.submit(send, self._match, group, self._settings, was_sent=was_sent)] = group

    def _collect(self) -> None:
        """Wait for a request, and note its outcomes."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            sent = future.result()
            self._finish(self._running.pop(future), sent)

    def _finish(self, group: Group, sent: Sent) -> None:
        reports, rows = [], []
        for number, (outcome, is_shrunk) in sent.items():
            image = group.images[number]
            state, report = _state(image.source, outcome, is_shrunk=is_shrunk)
            reports.append(report)
            rows.append((key_of(image), state, report.code, outcome.task.id if outcome.task else None))
        self._journal.finish(rows)
        is_late = group.request in self._resumed
        for report in reports:
            self._report(replace(report, is_late=is_late))

    def _poll(self) -> int:
        """Note which accepted images are stored or have failed; return the number of the others."""
        left, after = 0, START
        while images := self._journal.open(POLLED, after=after):
            after = images[-1].key
            groups = [images[start : start + MAX_IDS] for start in range(0, len(images), MAX_IDS)]
            tasks: dict[str, Task] = {}
            for some in self._threads.map(self._tasks, groups):
                tasks |= some
            states = [(image, tasks.get(image.task)) for image in images]
            ended = [(image, task) for image, task in states if task is None or task.has_ended]
            left += len(images) - len(ended)
            results = [(image, *_ended(image.key[0], task)) for image, task in ended]
            self._journal.finish((image.key, state, report.code, None) for image, state, report in results)
            for _, _, report in results:
                self._report(replace(report, is_late=True))
        return left

    def _tasks(self, images: Sequence[Open]) -> dict[str, Task]:
        """Return the tasks of images that the service knows, by their ids."""
        ids = [image.task for image in images]
        return {task.id: task for task in self._match.tasks(ids=ids, collection=self._settings.collection)}


def send(match: Match, group: Group, settings: Settings, *, was_sent: bool = False) -> Sent:
    """Send a group, and again in smaller copies the images that are too large.

    All depends only on the group and its files: a later run that sends it again sends the same requests. `was_sent`:
    an interrupted run sent it, and the service is asked first what it accepted.
    """
    options = Options(collection=settings.collection, wait_s=WAIT_S, batch=settings.batch)
    items: dict[int, Item] = {}
    outcomes: dict[int, Outcome] = {}
    copies: dict[int, Item] = {}
    for number, image in group.images.items():
        item = item_of(NewImage(image=image.source, filepath=image.filepath, metadata=image.metadata), number)
        if isinstance(item, Outcome):
            outcomes[number] = item
        elif _is_above(item, settings.max_bytes) and (copy := _copy(item)) is not None:
            copies[number] = copy
        else:
            items[number] = item
    if items:
        # A group has one form.
        form = next(iter(items.values())).form
        outcomes |= accept(match.transport, items, form, options, key=group.request, was_sent=was_sent)
    for number, item in items.items():
        if outcomes[number].code in TOO_LARGE and (copy := _copy(item)) is not None:
            copies[number] = copy
    if copies:
        outcomes |= accept(match.transport, copies, Form.FORM, options, key=group.request + SHRUNK, was_sent=was_sent)
    return {number: (outcome, number in copies) for number, outcome in outcomes.items()}


def _is_above(item: Item, max_bytes: int) -> bool:
    return isinstance(item.source, Upload) and len(item.source.data) > max_bytes


def _copy(item: Item) -> Item | None:
    """Return the item with a smaller copy of its image, if one can be made."""
    data = shrink(item.source.data) if isinstance(item.source, Upload) else None
    return None if data is None else Item(item.filepath, Upload(data), item.metadata)


def _state(source: str, outcome: Outcome, *, is_shrunk: bool) -> tuple[State, Report]:
    if outcome.status == "fail":
        reason = "; ".join(outcome.errors)
        return State.FAILED, Report(source=source, result=Result.FAILED, code=outcome.code, reason=reason)
    if outcome.task is not None and not outcome.task.has_ended:
        return State.ACCEPTED, Report(source=source, result=Result.ACCEPTED, is_shrunk=is_shrunk)
    state, report = _ended(source, outcome.task)
    return state, replace(report, is_shrunk=is_shrunk)


def _ended(source: str, task: Task | None) -> tuple[State, Report]:
    """Return the state of an image whose task has ended, or is not known any more."""
    if task is None:
        reason = "the service has no record of its task"
        return State.FAILED, Report(source=source, result=Result.FAILED, code="unknown_task", reason=reason)
    if task.error is not None:
        report = Report(source=source, result=Result.FAILED, code=task.error.code, reason=task.error.message)
        return State.FAILED, report
    if task.state == "cancelled":
        return State.FAILED, Report(
            source=source, result=Result.FAILED, code="cancelled", reason="the task was cancelled"
        )
    is_featureless = task.warning is not None and task.warning.code == FEATURELESS
    return State.STORED, Report(source=source, result=Result.FEATURELESS if is_featureless else Result.STORED)
