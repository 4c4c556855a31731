"""Types of the contents of replies and callbacks, for their documentation."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from common.images.orientations import ORIENTATIONS
from common.modes import MODES
from common.queue.batches import BatchState
from common.queue.callbacks import DELIVERY_SIZE, CallbackState
from common.queue.tasks import Action, State
from common.search import MatchedBy

# Not an enum: a class that a generator makes of it would reject the codes of later versions.
WarningCode: Any = Annotated[
    str,
    Field(
        description="Present if the `status` is `warn` for a reason with a code. `featureless`: the image has no "
        "features, such as an image of one colour."
    ),
]
# Of the size of an image that was imported as a signature.
IMPORTED = "0 if the image was imported without its file"
# The default of an optional field.
ABSENT: Any = Field(default=None)

Score = Annotated[float, Field(ge=0, le=100, description="From 0 to 100; equal images have 100.")]
Time = Annotated[str, Field(description="ISO 8601, in UTC.", json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0, description="The number of images.")]
Collection = Annotated[str, Field(description="The name of the collection.")]
Filepath = Annotated[str, Field(description="The name of the image.")]
Metadata = Annotated[dict[str, Any] | None, Field(description="The metadata of the image, or null.")]
Cursor = Annotated[str | None, Field(description="The `cursor` of the next request; null at the end.")]
PageCursor = Annotated[
    str | None, Field(description="Of a page: the `cursor` of the next request; null at the end. Absent for one image.")
]


class TaskError(BaseModel):
    """Why a task failed."""

    code: Annotated[str, Field(description="One of the codes of 422 and 500.")]
    message: Annotated[str, Field(description="The reason, as a text for people.")]


class TaskWarning(BaseModel):
    """The limits of the result of a task that succeeded."""

    code: Annotated[str, Field(description="The code, such as `featureless`.")]
    message: Annotated[str, Field(description="The reason, as a text for people.")]


class Callback(BaseModel):
    """The state of the callback that reports the end of a task."""

    state: Annotated[
        CallbackState,
        Field(
            description="`pending`: the task has not ended, or its end is not delivered yet. `delivered`: the receiver "
            "answered 2xx. `failed`: not delivered in time, or the receiver answered 410. `dropped`: never sent, since "
            "too many callbacks were pending."
        ),
    ]
    attempts: Annotated[int, Field(ge=0, description="The number of calls to the receiver.")]
    error: Annotated[str | None, Field(description="The error of the last call, or null.")]
    next: Annotated[Time | None, Field(description="The time of the next call, or null.")]


class Task(BaseModel):
    """Accepted work: one image to store."""

    id: Annotated[str, Field(description="The id of the task in `/tasks/{id}`.")]
    state: Annotated[
        State,
        Field(
            description="`pending`: enqueued. `running`: a worker has started it. `succeeded`: stored, and found by "
            "searches at once, on Elasticsearch within the refresh interval (a second). `superseded`: a newer request "
            "for its filepath was stored first. `failed`: `error` has the reason. `cancelled`: cancelled by a client."
        ),
    ]
    action: Annotated[
        Action,
        Field(
            description="`add`: stores an image. `delete_collection`: deletes a collection and its images. "
            "`delete_images`: deletes the images of a selection."
        ),
    ]
    collection: Collection
    batch: Annotated[str | None, Field(description="The id of its batch in `/batches/{id}`; null for a single add.")]
    filepath: Annotated[str | None, Field(description="The name of the image; null for a deletion.")]
    error: Annotated[TaskError | None, Field(description="The reason of a failure, or null.")]
    warning: Annotated[
        TaskWarning | None,
        Field(
            description="The limits of a success, or null. `featureless`: the image is stored, but has no features, "
            "such as an image of one colour, and no search finds it. Also null if an earlier version ended the task."
        ),
    ]
    attempts: Annotated[int, Field(ge=0, description="How often a worker has started it.")]
    next_try: Annotated[
        Time | None,
        Field(description="The earliest time of the next try, if it waits for the host of its image; else null."),
    ]
    cause: Annotated[
        TaskError | None,
        Field(description="The last temporary fault of the host, such as `http_rate_limited`, or null."),
    ]
    accepted: Annotated[Time, Field(description="The time when its request was accepted.")]
    started: Annotated[Time | None, Field(description="The time when a worker started it, or null.")]
    finished: Annotated[Time | None, Field(description="The time when it ended, or null.")]
    request_id: Annotated[str | None, Field(description="The `X-Request-ID` of its request.")]
    callback: Annotated[Callback, Field(description="Present if the request had a `callback_url`.")] = ABSENT


class Batch(BaseModel):
    """The progress of a batch."""

    id: Annotated[str, Field(description="The id of the batch in `/batches/{id}`.")]
    state: Annotated[
        BatchState,
        Field(
            description="`running`: tasks are open, or a request may add more. `ended`: all tasks have ended. "
            "`cancelled`: cancelled by a client; running tasks may not have ended yet."
        ),
    ]
    collection: Collection
    total: Annotated[int, Field(ge=0, description="The number of its tasks: those that were accepted.")]
    pending: Annotated[int, Field(ge=0, description="The number of tasks in this state.")]
    running: Annotated[int, Field(ge=0, description="The number of tasks in this state.")]
    succeeded: Annotated[int, Field(ge=0, description="The number of tasks in this state.")]
    superseded: Annotated[int, Field(ge=0, description="The number of tasks in this state.")]
    failed: Annotated[int, Field(ge=0, description="The number of tasks in this state.")]
    cancelled: Annotated[int, Field(ge=0, description="The number of tasks in this state.")]
    failures: Annotated[
        dict[str, int], Field(description="The number of failed tasks by the code of their error, the most first.")
    ]
    accepted: Annotated[Time, Field(description="The time when its first request began.")]
    ended: Annotated[Time | None, Field(description="The time when its last task ended, or null.")]
    rate_per_s: Annotated[
        float,
        Field(ge=0, description="Tasks that ended per second: in the last 10 to 20 s or, after the end, on average."),
    ]
    seconds_left: Annotated[
        int | None, Field(ge=0, description="The seconds until the end at this rate; null without a rate.")
    ]
    request_id: Annotated[str | None, Field(description="The `X-Request-ID` of its first request.")]
    callback: Annotated[Callback, Field(description="Present if a request had a `callback_url`.")] = ABSENT


OneTask = Annotated[
    Task, Field(description="The task of a request with one image; of many images, each outcome has its own.")
]


Mode: Any = Annotated[
    Literal[MODES],
    Field(
        description="The mode that was used: `fast` if the service uses no local features, the collection has too many "
        "images for `auto`, or a stored image has none."
    ),
]


class Transform(BaseModel):
    """An affine map from a pixel (x, y) of the stored image to one of the query.

    x' = m11 x + m12 y + m13, and y' = m21 x + m22 y + m23.
    """

    m11: Annotated[float, Field(description="The share of x in x'.")]
    m12: Annotated[float, Field(description="The share of y in x'.")]
    m13: Annotated[float, Field(description="The shift of x', in pixels.")]
    m21: Annotated[float, Field(description="The share of x in y'.")]
    m22: Annotated[float, Field(description="The share of y in y'.")]
    m23: Annotated[float, Field(description="The shift of y', in pixels.")]


class Placement(BaseModel):
    """Where the query shows a stored image."""

    score: Score
    matched_by: Annotated[MatchedBy, Field(description="The way of comparing to which the score belongs.")]
    query_overlap_percent: Annotated[
        float,
        Field(
            ge=0, le=100, description="The share of the query that shows the image. Present if local features match."
        ),
    ] = ABSENT
    target_overlap_percent: Annotated[
        float,
        Field(
            ge=0, le=100, description="The share of the image that the query shows. Present if local features match."
        ),
    ] = ABSENT
    transform: Annotated[
        Transform, Field(description="The place of the image in the query. Present if local features match.")
    ] = ABSENT


class Match(Placement):
    """A stored image that is similar to the query, or shares a part with it."""

    filepath: Filepath
    metadata: Metadata
    orientation: Annotated[
        Literal[tuple(ORIENTATIONS)],  # type: ignore[valid-type]  # the words are declared once
        Field(description="The transformation of the query that matches the stored image."),
    ]


class Comparison(Placement):
    """The similarity of two images; the first is the query, the second the stored image."""


class Image(BaseModel):
    """A stored image."""

    collection: Collection
    filepath: Filepath
    metadata: Metadata
    added: Annotated[Time, Field(description="The time when a worker processed it.")]
    width: Annotated[int, Field(ge=0, description=f"In pixels, after its EXIF orientation is applied; {IMPORTED}.")]
    height: Annotated[int, Field(ge=0, description=f"In pixels, after its EXIF orientation is applied; {IMPORTED}.")]
    featureless: Annotated[
        bool, Field(description="Whether it has no features, such as an image of one colour: no search finds it.")
    ]
    few_features: Annotated[
        bool | None,
        Field(
            description="Whether it has fewer than 30 local features, so that searches may miss it after a crop or in "
            "a screenshot; null if none were computed."
        ),
    ]
    url: Annotated[
        str | None,
        Field(
            description="The URL that it was added by, without fragment, credentials and signed query parameters; null "
            "after an upload, or if the service keeps no URLs. Also null if an earlier version stored the image."
        ),
    ]
    sha256: Annotated[
        str | None,
        Field(
            description="The SHA-256 of its bytes, in hexadecimal digits; null if an earlier version stored the image.",
            json_schema_extra={"pattern": "^[0-9a-f]{64}$"},
        ),
    ]


DeletionTask = Annotated[Task, Field(description="The task of a deletion by `filepath_prefix` or `filter`.")]


class PatchedImage(BaseModel):
    """The metadata of an image after a patch; null for a key without the scope `read`."""

    collection: Collection
    filepath: Filepath
    metadata: Metadata


class CollectionState(BaseModel):
    """A collection."""

    name: Collection
    images: Annotated[int, Field(ge=0, description="The number of its images.")]
    max_images: Annotated[int | None, Field(ge=0, description="The maximum number of its images; null: unlimited.")]


class Outcome(BaseModel):
    """The outcome of one image among many; a failure has a code."""

    status: Annotated[
        Literal["ok", "warn", "fail"],
        Field(
            description="`ok`: accepted or stored; `warn`: superseded, cancelled, or stored without features; `fail`: "
            "rejected or failed."
        ),
    ]
    error: Annotated[list[str], Field(description="The error texts; empty without an error.")]
    task: Annotated[Task, Field(description="Present if it was accepted.")] = ABSENT
    batch: Annotated[str, Field(description="The id of its batch. Present if it was accepted.")] = ABSENT
    code: Annotated[str, Field(description="The code of the error, or of a warning such as `featureless`.")] = ABSENT
    field: Annotated[str, Field(description="The parameter that caused the error.")] = ABSENT
    retry_after: Annotated[int, Field(ge=0, description="Seconds after which a retry may succeed.")] = ABSENT
    replayed: Annotated[bool, Field(description="Whether the task was accepted before, with the same key.")] = ABSENT


class ItemOutcome(Outcome):
    """The outcome of the image with this index."""

    item: Annotated[int, Field(ge=0, description="The index in the names of its parameters.")]


class LineOutcome(Outcome):
    """The outcome of the image in this line."""

    line: Annotated[int, Field(ge=1, description="The number of the line, from 1; blank lines count.")]


class SearchOutcome(BaseModel):
    """The result of the search in this line."""

    line: Annotated[int, Field(ge=1, description="The number of the line, from 1; blank lines count.")]
    status: Annotated[
        Literal["ok", "warn", "fail"],
        Field(description="`ok`; `warn`: the image has no features; `fail`: not searched, `code` has the reason."),
    ]
    error: Annotated[list[str], Field(description="The error texts; empty without an error.")]
    result: Annotated[list[Match], Field(description="The matches, best first.")]
    mode: Annotated[Mode, Field(description="The mode that was used. Present unless the search failed.")] = ABSENT
    code: Annotated[str, Field(description="The code of the error, or of the warning `featureless`.")] = ABSENT
    field: Annotated[str, Field(description="The parameter that caused the error.")] = ABSENT
    retry_after: Annotated[int, Field(ge=0, description="Seconds after which a retry may succeed.")] = ABSENT


UsageTime: Any = Annotated[
    str,
    Field(
        description="The time of the first or the last count, ISO 8601 in UTC.",
        json_schema_extra={"format": "date-time"},
    ),
]


class Usage(BaseModel):
    """The use of one collection with one API key."""

    key: Annotated[str | None, Field(description="The name of the key; null without a key.")]
    collection: Annotated[
        str | None, Field(description="The collection; null for requests that have none, and for rejected ones.")
    ]
    requests: Annotated[int, Field(ge=0, description="The number of requests.")]
    adds: Annotated[int, Field(ge=0, description="The number of accepted images.")]
    searches: Annotated[int, Field(ge=0, description="The number of searches, also in batches.")]
    bytes: Annotated[int, Field(ge=0, description="The size of the bodies of requests and replies.")]


class Retried(BaseModel):
    """The result of retrying failed tasks."""

    retried: Annotated[int, Field(ge=0, description="The number of tasks that are enqueued again.")]
    left: Annotated[
        dict[str, int], Field(description="The number of tasks that cannot be retried, by the code of the reason.")
    ]


class QueueState(BaseModel):
    """The state of the queue."""

    waiting: Annotated[int, Field(ge=0, description="The number of accepted tasks that do not run.")]
    running: Annotated[int, Field(ge=0, description="The number of tasks that run.")]
    failed: Annotated[int, Field(ge=0, description="The number of failed tasks that are kept.")]
    oldest_age_s: Annotated[
        float, Field(ge=0, description="Seconds since the oldest open task was accepted; 0 without one.")
    ]
    rate_per_s: Annotated[
        float, Field(ge=0, description="Tasks that end in a second: the mean of this minute and the last one.")
    ]
    workers: Annotated[int, Field(ge=0, description="The number of worker processes that are alive.")]
    paused: Annotated[bool, Field(description="Whether workers begin no task.")]


class StoreCheck(BaseModel):
    """The state of the store."""

    reads: Annotated[bool, Field(description="Whether searches are served.")]
    writes: Annotated[bool, Field(description="Whether images can be stored and deleted.")]
    detail: Annotated[str, Field(description="The error, or an empty text.")]


class RedisCheck(BaseModel):
    """The state of Redis."""

    ok: Annotated[bool, Field(description="Whether Redis answers; otherwise no add is accepted.")]
    detail: Annotated[str, Field(description="The error, or an empty text.")]


class QueueCheck(BaseModel):
    """The state of the queue."""

    paused: Annotated[bool, Field(description="Whether workers begin no task; false if Redis does not answer.")]


class Checks(BaseModel):
    """The states of the dependencies."""

    store: Annotated[StoreCheck, Field(description="The store of the images.")]
    redis: Annotated[RedisCheck, Field(description="Redis, which has the queue.")]
    queue: Annotated[QueueCheck, Field(description="The queue.")]


class BatchCall(BaseModel):
    """The body of a request to a `callback_url` when a batch has ended."""

    type: Annotated[Literal["batch.ended"], Field(description="The type of the event.")]
    timestamp: Annotated[Time, Field(description="The time when the batch ended.")]
    batch: Annotated[Batch, Field(description="The batch as it was then, without its `callback`.")]


class Call(BaseModel):
    """The body of a request to a `callback_url` when tasks have ended."""

    type: Annotated[Literal["tasks.ended"], Field(description="The type of the event.")]
    timestamp: Annotated[Time, Field(description="The time when the last of the tasks ended.")]
    tasks: Annotated[
        list[Task],
        Field(
            min_length=1,
            max_length=DELIVERY_SIZE,
            description="The tasks that ended, each as it was then, without its `callback`.",
        ),
    ]
