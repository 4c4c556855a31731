"""The results of requests, as types."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

Json = Mapping[str, Any]
Metadata = Mapping[str, Any]

ENDED = frozenset({"succeeded", "superseded", "failed", "cancelled"})
DEFAULT_COLLECTION = "default"
FEATURELESS = "featureless"


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason of a failure or a warning."""

    code: str
    message: str

    @classmethod
    def from_json(cls, data: Json | None) -> Self | None:
        """Return the reason in a reply, or None."""
        return None if data is None else cls(data["code"], data["message"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The state of the queue, over all collections."""

    waiting: int
    running: int
    failed: int
    oldest_age_s: float
    rate_per_s: float
    workers: int
    is_paused: bool

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Return the state in a reply."""
        return cls(
            waiting=data["waiting"],
            running=data["running"],
            failed=data["failed"],
            oldest_age_s=data["oldest_age_s"],
            rate_per_s=data["rate_per_s"],
            workers=data["workers"],
            is_paused=data["paused"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Accepted work: one image to store.

    `state` is `pending`, `running`, `succeeded`, `superseded`, `failed` or `cancelled`. A task that waits for the host
    of its image has a `next_try`, and `cause` is the last temporary fault of the host.
    """

    id: str
    state: str
    filepath: str
    error: Reason | None = None
    warning: Reason | None = None
    attempts: int = 0
    next_try: datetime | None = None
    cause: Reason | None = None
    accepted: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    request_id: str | None = None
    collection: str = DEFAULT_COLLECTION
    batch: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDED

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Return the task in a reply or a webhook."""
        return cls(
            id=data["id"],
            state=data["state"],
            filepath=data.get("filepath") or "",
            error=Reason.from_json(data.get("error")),
            warning=Reason.from_json(data.get("warning")),
            attempts=data.get("attempts", 0),
            next_try=_time(data.get("next_try")),
            cause=Reason.from_json(data.get("cause")),
            accepted=_time(data.get("accepted")),
            started=_time(data.get("started")),
            finished=_time(data.get("finished")),
            request_id=data.get("request_id"),
            collection=data.get("collection") or DEFAULT_COLLECTION,
            batch=data.get("batch"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The progress of the images that were added or deleted together.

    `state` is `running`, `ended` or `cancelled`. The other numbers count the tasks in each state, and `failures` the
    failed ones by code. `rate_per_s` is how many end per second; `seconds_left` is None without a rate.
    """

    id: str
    state: str
    total: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    superseded: int = 0
    failed: int = 0
    cancelled: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    accepted: datetime | None = None
    ended: datetime | None = None
    rate_per_s: float = 0.0
    seconds_left: int | None = None
    request_id: str | None = None
    collection: str = DEFAULT_COLLECTION

    @property
    def has_ended(self) -> bool:
        """Whether all tasks have ended, and no request adds more."""
        return self.ended is not None

    @property
    def done(self) -> int:
        """The number of tasks that stored or deleted their images, or left them to a newer request."""
        return self.succeeded + self.superseded

    @property
    def summary(self) -> str:
        """The progress in one line."""
        codes = ", ".join(f"{number} {code}" for code, number in self.failures.items())
        has_time = self.seconds_left is not None and not self.has_ended
        parts = [
            f"{self.done:,} of {self.total:,} done",
            f"{self.failed:,} failed: {codes}" if self.failed else "",
            f"{self.cancelled:,} cancelled" if self.cancelled else "",
            f"{self.rate_per_s:.0f}/s" if self.rate_per_s else "",
            f"{self.seconds_left:,} s left" if has_time else "",
        ]
        return ", ".join(part for part in parts if part)

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Return the batch in a reply or a webhook."""
        numbers = ("total", "pending", "running", "succeeded", "superseded", "failed", "cancelled")
        return cls(
            id=data["id"],
            state=data["state"],
            **{name: data.get(name, 0) for name in numbers},
            failures=dict(data.get("failures") or {}),
            accepted=_time(data.get("accepted")),
            ended=_time(data.get("ended")),
            rate_per_s=data.get("rate_per_s") or 0.0,
            seconds_left=data.get("seconds_left"),
            request_id=data.get("request_id"),
            collection=data.get("collection") or DEFAULT_COLLECTION,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one image of many; `number` is its index among the images of the call, from 0.

    `status` is `ok`, `warn` or `fail`; an accepted image has a `task`. `replayed`: it was accepted by an earlier
    request with the same idempotency key.
    """

    number: int
    filepath: str
    status: str
    errors: Sequence[str] = ()
    code: str | None = None
    field: str | None = None
    retry_after: float | None = None
    task: Task | None = None
    replayed: bool = False
    batch: str | None = None

    @classmethod
    def from_json(cls, data: Json, *, number: int, filepath: str) -> Self:
        """Return the outcome in a reply, of the image with this number."""
        return cls(
            number=number,
            filepath=filepath,
            status=data["status"],
            errors=tuple(data.get("error", ())),
            code=data.get("code"),
            field=data.get("field"),
            retry_after=data.get("retry_after"),
            task=None if data.get("task") is None else Task.from_json(data["task"]),
            replayed=data.get("replayed", False),
            batch=data.get("batch"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """The similarity of two images, from 0 to 100.

    `matched_by` is `signature` or `local_features`. Only local features have the other fields. They are the common
    part's share of each image, and the map from the pixels of the stored image to those of the query.
    """

    score: float
    matched_by: str | None = None
    query_overlap_percent: float | None = None
    target_overlap_percent: float | None = None
    transform: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMatch(Similarity):
    """A stored image that is similar to the query."""

    filepath: str
    metadata: Metadata | None = None
    orientation: str | None = None

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Return the match in a reply."""
        return cls(
            filepath=data["filepath"],
            metadata=data.get("metadata"),
            orientation=data.get("orientation"),
            **similarity(data),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The matches of a search, best first.

    `warning` is the code of a warning: `featureless` if the query has no features, and so no matches. `mode` is the
    search mode that the service used.
    """

    matches: Sequence[FoundMatch] = ()
    warning: str | None = None
    mode: str | None = None

    @property
    def is_featureless(self) -> bool:
        """Whether the query has no features, so that no search finds it."""
        return self.warning == FEATURELESS

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Return the matches in a reply, or in a line of one."""
        return cls(
            matches=tuple(FoundMatch.from_json(result) for result in data["result"]),
            warning=data.get("code"),
            mode=data.get("mode"),
        )

    def __iter__(self) -> Iterator[FoundMatch]:
        return iter(self.matches)

    def __len__(self) -> int:
        return len(self.matches)

    def __getitem__(self, index: int) -> FoundMatch:
        return self.matches[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """The result of one search of many; `number` is its index among the queries of the call, from 0.

    `status` is `ok`, `warn` or `fail`; a failed search has no matches.
    """

    number: int
    filepath: str | None
    url: str | None
    status: str
    errors: Sequence[str] = ()
    code: str | None = None
    field: str | None = None
    retry_after: float | None = None
    matches: Matches = Matches()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The use of one collection with one API key; None without a key or a collection."""

    key: str | None
    collection: str | None
    requests: int
    adds: int
    searches: int
    bytes: int

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Return the use in a reply."""
        return cls(**{name: data[name] for name in ("key", "collection", "requests", "adds", "searches", "bytes")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Similarity):
    """The similarity of two images, with the code of a warning and the search mode.

    With the warning `featureless` one of the images has no features, and the score is 100 or 0.
    """

    warning: str | None = None
    mode: str | None = None

    @property
    def is_featureless(self) -> bool:
        """Whether one of the images has no features."""
        return self.warning == FEATURELESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """The metadata of an image after a patch; if it is not stored yet, `is_stored` is false and the patch waits."""

    is_stored: bool
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A stored image."""

    filepath: str
    metadata: Metadata | None = None
    added: datetime | None = None
    width: int | None = None
    height: int | None = None
    is_featureless: bool = False
    has_few_features: bool = False
    url: str | None = None
    sha256: str | None = None
    collection: str = DEFAULT_COLLECTION

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Return the image in a reply."""
        return cls(
            filepath=data["filepath"],
            metadata=data.get("metadata"),
            added=_time(data.get("added")),
            width=data.get("width"),
            height=data.get("height"),
            is_featureless=data.get("featureless", False),
            has_few_features=data.get("few_features") or False,
            url=data.get("url"),
            sha256=data.get("sha256"),
            collection=data.get("collection") or DEFAULT_COLLECTION,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection: its number of images, and its quota, if it has one."""

    name: str
    images: int
    max_images: int | None = None

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Return the collection in a reply."""
        return cls(name=data["name"], images=data["images"], max_images=data.get("max_images"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """A page of names of stored images; `cursor` is that of the next page, None at the end."""

    names: Sequence[str]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """The result of retrying failed tasks: `left` has the number that cannot be retried, by the reason's code."""

    retried: int = 0
    left: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The state of the service: `errors` has a text for each dependency that does not work."""

    is_ready: bool
    errors: Sequence[str] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)


def similarity(data: Json) -> dict[str, Any]:
    """Return the fields of a similarity in a reply."""
    names = ("score", "matched_by", "query_overlap_percent", "target_overlap_percent", "transform")
    return {name: data.get(name) for name in names}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
