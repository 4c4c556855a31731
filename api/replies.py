"""What replies and callbacks hold: the types by which they are documented."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from common.images.orientations import ORIENTATIONS
from common.queue.callback_scripts import TOGETHER
from common.queue.callbacks import CallState
from common.queue.tasks import State

# In the default's place of what is not always there.
ABSENT: Any = Field(default=None)

Score = Annotated[float, Field(ge=0, le=100, description="From 0 to 100, where equal pictures have 100.")]
Time = Annotated[str, Field(description="ISO 8601, in UTC.", json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0, description="How many there are.")]
Filepath = Annotated[str, Field(description="The picture's name.")]
Metadata = Annotated[dict[str, Any] | None, Field(description="As they were given; null where none were.")]
Cursor = Annotated[str | None, Field(description="What the next request goes on from; null at the end.")]


class TaskError(BaseModel):
    """Why a task failed."""

    code: Annotated[str, Field(description="One of those of 422 and 500.")]
    message: Annotated[str, Field(description="The reason, for people.")]


class Callback(BaseModel):
    """How far the call is that tells of a task's end."""

    state: Annotated[
        CallState,
        Field(
            description="`pending`: the task goes on, or its end is not taken yet; `delivered`: the receiver answered "
            "2xx; `failed`: given up, not taken in time or answered by 410; `dropped`: never sent, too many waited."
        ),
    ]
    attempts: Annotated[int, Field(ge=0, description="How often the receiver was called.")]
    error: Annotated[str | None, Field(description="What went wrong last.")]
    next: Annotated[Time | None, Field(description="When it is tried again.")]


class Task(BaseModel):
    """Accepted work: one picture to be stored."""

    id: Annotated[str, Field(description="What it is asked for, sent again and cancelled by.")]
    state: Annotated[
        State,
        Field(
            description="`pending`: it waits; `running`: a worker has it; `succeeded`: stored for good, and found by "
            "searches at once, on Elasticsearch within the refresh interval (a second); `superseded`: a newer request "
            "for its filepath came first; `failed`: `error` says why; `cancelled`: it was not to be done."
        ),
    ]
    filepath: Filepath
    error: Annotated[TaskError | None, Field(description="Why it failed; null where it did not.")]
    attempts: Annotated[int, Field(ge=0, description="How often a worker began it.")]
    accepted: Annotated[Time, Field(description="When its request came.")]
    started: Annotated[Time | None, Field(description="When a worker began it; null before.")]
    finished: Annotated[Time | None, Field(description="When it ended; null before.")]
    request_id: Annotated[str | None, Field(description="The `X-Request-ID` of the request that brought it.")]
    callback: Annotated[Callback, Field(description="Where a `callback_url` was given.")] = ABSENT


OneTask = Annotated[Task, Field(description="Where one picture was to be added; of many, each outcome has its own.")]


class Match(BaseModel):
    """A stored picture that looks like the one that was sought."""

    score: Score
    filepath: Filepath
    metadata: Metadata
    orientation: Annotated[
        Literal[tuple(ORIENTATIONS)],  # type: ignore[valid-type]  # the words stand in one place
        Field(description="How the picture that was sought must be turned to look like the stored one."),
    ]


class Comparison(BaseModel):
    """How alike two pictures are."""

    score: Score


class Image(BaseModel):
    """A stored picture."""

    filepath: Filepath
    metadata: Metadata
    added: Annotated[Time, Field(description="When it was worked on.")]
    width: Annotated[int, Field(ge=1, description="In pixels, upright.")]
    height: Annotated[int, Field(ge=1, description="In pixels, upright.")]
    featureless: Annotated[
        bool, Field(description="Whether it has nothing to be known by, such as a plain one: no search finds it.")
    ]


class Outcome(BaseModel):
    """What became of one picture among many; what failed has a code."""

    status: Annotated[
        Literal["ok", "warn", "fail"],
        Field(description="`ok`: accepted, or stored; `warn`: its task was superseded or cancelled; `fail`: neither."),
    ]
    error: Annotated[list[str], Field(description="What is wrong; empty where nothing is.")]
    task: Annotated[Task, Field(description="Where it was accepted.")] = ABSENT
    code: Annotated[str, Field(description="What is wrong, as in a failure.")] = ABSENT
    field: Annotated[str, Field(description="The parameter that is to blame.")] = ABSENT
    retry_after: Annotated[int, Field(ge=0, description="Seconds after which it may succeed.")] = ABSENT
    replayed: Annotated[bool, Field(description="Whether the task was accepted before, by the same key.")] = ABSENT


class ItemOutcome(Outcome):
    """What became of the picture with this number."""

    item: Annotated[int, Field(ge=0, description="The number in its parameters' brackets.")]


class LineOutcome(Outcome):
    """What became of the picture in this line."""

    line: Annotated[int, Field(ge=1, description="Counted from 1, blank ones included.")]


class Retried(BaseModel):
    """What became of failed tasks that were to be sent again."""

    retried: Annotated[int, Field(ge=0, description="How many are in the queue again.")]
    left: Annotated[
        dict[str, int], Field(description="How many were left alone, by the code that their own retry would fail with.")
    ]


class StoreCheck(BaseModel):
    """Whether the store serves."""

    reads: Annotated[bool, Field(description="Whether searches are answered.")]
    writes: Annotated[bool, Field(description="Whether pictures can be stored and deleted.")]
    detail: Annotated[str, Field(description="What is wrong; empty where nothing is.")]


class RedisCheck(BaseModel):
    """Whether Redis answers."""

    ok: Annotated[bool, Field(description="Whether it answers; while it does not, no add is accepted.")]
    detail: Annotated[str, Field(description="What is wrong; empty where nothing is.")]


class Checks(BaseModel):
    """What the service depends on."""

    store: Annotated[StoreCheck, Field(description="Where pictures are kept.")]
    redis: Annotated[RedisCheck, Field(description="Where work waits.")]


class Call(BaseModel):
    """What is posted to a `callback_url`."""

    type: Annotated[Literal["tasks.ended"], Field(description="What happened.")]
    timestamp: Annotated[Time, Field(description="When the last of the tasks ended.")]
    tasks: Annotated[
        list[Task],
        Field(
            min_length=1,
            max_length=TOGETHER,
            description="Those that ended, each as it was then and without its own `callback`.",
        ),
    ]
