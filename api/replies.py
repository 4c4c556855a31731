"""What the replies hold: the types by which they are documented."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from common.callbacks import CallState
from common.ledger import State
from common.orientations import ORIENTATIONS

# In the default's place of what is not always there.
ABSENT: Any = Field(default=None)

Score = Annotated[float, Field(ge=0, le=100, description="From 0 to 100, where equal pictures have 100.")]
Time = Annotated[str, Field(description="ISO 8601, in UTC.", json_schema_extra={"format": "date-time"})]
Cursor = Annotated[str | None, Field(description="What the next request goes on from; null at the end.")]


class TaskError(BaseModel):
    """Why a task failed."""

    code: str
    message: str


class Callback(BaseModel):
    """How far the call is that tells of a task's end."""

    state: CallState
    attempts: Annotated[int, Field(ge=0, description="How often the receiver was called.")]
    error: Annotated[str | None, Field(description="What went wrong last.")]
    next: Annotated[Time | None, Field(description="When it is tried again.")]


class Task(BaseModel):
    """Accepted work. Succeeded: stored for good, and found by a search within the refresh interval."""

    id: str
    state: State
    filepath: str
    error: TaskError | None
    attempts: Annotated[int, Field(ge=0, description="How often a worker began it.")]
    accepted: Time
    started: Time | None
    finished: Time | None
    request_id: Annotated[str | None, Field(description="The `X-Request-ID` of the request that brought it.")]
    callback: Annotated[Callback, Field(description="Where a `callback_url` was given.")] = ABSENT


class Match(BaseModel):
    """A stored picture that looks like the one that was sought."""

    score: Score
    filepath: str
    metadata: dict[str, Any] | None
    orientation: Annotated[
        Literal[tuple(ORIENTATIONS)],  # type: ignore[valid-type]  # the words stand in one place
        Field(description="How the picture that was sought must be turned to look like the stored one."),
    ]


class Comparison(BaseModel):
    """How alike two pictures are."""

    score: Score


class Image(BaseModel):
    """A stored picture."""

    filepath: str
    metadata: dict[str, Any] | None
    added: Time
    width: Annotated[int, Field(ge=1, description="In pixels, upright.")]
    height: Annotated[int, Field(ge=1, description="In pixels, upright.")]
    featureless: Annotated[bool, Field(description="Whether it has nothing that a search could find it by.")]


class Outcome(BaseModel):
    """What became of one picture among many; what failed has a code."""

    status: Literal["ok", "warn", "fail"]
    error: list[str]
    task: Task = ABSENT
    code: str = ABSENT
    field: str = ABSENT
    retry_after: Annotated[int, Field(ge=0, description="Seconds after which it may succeed.")] = ABSENT
    replayed: Annotated[bool, Field(description="Whether the task was accepted before, by the same key.")] = ABSENT


class ItemOutcome(Outcome):
    """What became of the picture with this number."""

    item: int


class LineOutcome(Outcome):
    """What became of the picture in this line."""

    line: Annotated[int, Field(ge=1, description="Counted from 1, blank ones included.")]


class Retried(BaseModel):
    """What became of failed tasks that were to be sent again."""

    retried: Annotated[int, Field(ge=0)]
    left: Annotated[dict[str, int], Field(description="How many were left alone, by the reason.")]


class StoreCheck(BaseModel):
    """Whether the store serves."""

    reads: bool
    writes: bool
    detail: str


class RedisCheck(BaseModel):
    """Whether Redis answers."""

    ok: bool
    detail: str


class Checks(BaseModel):
    """What the service depends on."""

    store: StoreCheck
    redis: RedisCheck
