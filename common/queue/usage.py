"""The use of the service by API key and collection, counted in Redis for all processes and by day (UTC)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from redis import Redis

from common.queue import keys
from common.queue.scripts import script
from common.redis.client import redis_errors
from common.redis.clock import now_ms

DAY_MS = 86_400_000
# The current day and those before it.
MAX_DAYS = 31
KEEP_S = (MAX_DAYS + 1) * DAY_MS // 1000
# Different pairs of a key and a collection in a day; the others are counted together. A pair takes about 300 bytes.
MAX_LABELS = 1000
# Neither is the name of a key or of a collection.
OTHER = "*"


class Counted(StrEnum):
    """The quantities that are counted."""

    REQUESTS = "requests"
    ADDS = "adds"
    SEARCHES = "searches"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """The name of an API key, and of a collection, whose use is counted; None without one."""

    key: str | None = None
    collection: str | None = None

    def __str__(self) -> str:
        """Return the text that Redis keeps."""
        return f"{self.key or ''}|{self.collection or ''}"


@dataclass(frozen=True, slots=True)
class Usage:
    """The use in the days from `since` to `until`, in milliseconds since 1970 (UTC)."""

    since: int
    until: int
    counts: Mapping[Label, Counter[Counted]] = field(default_factory=dict)


class UsageCounts:
    """The counts in Redis.

    Each method raises QueueUnavailable when Redis does not answer and QueueError when it rejects the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._count = script(
            redis,
            "count_usage",
            max_fields=MAX_LABELS * len(Counted),
            keep_s=KEEP_S,
            day_ms=DAY_MS,
            other_label=str(Label(OTHER, OTHER)),
            first_count=Counted.REQUESTS.value,
        )

    def add(self, counts: Mapping[tuple[Label, Counted], int], *, writer: str, number: int) -> None:
        """Add the counts. Calls of one writer have ascending numbers; a repeated number changes nothing."""
        words = [word for (label, name), count in counts.items() for word in (str(label), name.value, count)]
        with redis_errors():
            self._count(*words, writer=writer, number=number)

    def read(self, *, days: int) -> Usage:
        """Return the use of the current day and of those before it, `days` together."""
        with redis_errors():
            now = now_ms(self._redis)
            today = now // DAY_MS
            pipe = self._redis.pipeline(transaction=False)
            for day in range(today - days + 1, today + 1):
                pipe.hgetall(f"{keys.USAGE}{day}")
            fields = pipe.execute()
        counts: dict[Label, Counter[Counted]] = {}
        for by_field in fields:
            for name, count in by_field.items():
                key, collection, counted = name.decode().split("|")
                if counted in [*Counted]:
                    label = Label(key or None, collection or None)
                    counts.setdefault(label, Counter())[Counted(counted)] += int(count)
        return Usage((today - days + 1) * DAY_MS, now, counts)
