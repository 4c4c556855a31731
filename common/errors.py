"""The error tree: the base classes of all errors that Match raises.

MatchError
├── ConfigError          invalid setting; the start stops
├── InputError           invalid parameter; `field` names it
├── ImageError           the image cannot be decoded; `code` has the reason
├── FetchError           the URL cannot be fetched; `code` has the reason
├── StoreError           the store rejected a request or failed
│   └── StoreUnavailable the store is unavailable; a retry may succeed
│       └── StoreUnusable the store must be repaired first
└── QueueError           Redis or the queue rejected a request or failed
    ├── QueueUnavailable Redis is unavailable; a retry may succeed
    └── Overloaded       no capacity for more work; a retry may succeed

An error that only one module raises has its class there, derived from one of these. `code` is stable and for programs;
the text is for people and contains no secret. api/errors.py lists every code that a client can receive.
"""


class MatchError(Exception):
    """The base class of all errors that Match raises.

    `field` is the name of the parameter that caused the error, as the client sent it, or None.
    """

    code = "error"
    field: str | None = None

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ConfigError(MatchError):
    """A setting has an invalid value; the message names the setting."""

    code = "wrong_setting"


class InputError(MatchError):
    """A parameter is missing or invalid."""

    code = "wrong_parameter"

    def __init__(self, message: str, *, field: str, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.field = field


class ImageError(MatchError):
    """The bytes cannot be decoded as an image within the limits."""

    code = "unreadable_image"


class FetchError(MatchError):
    """The URL cannot be fetched within the limits on addresses, time and size."""

    code = "fetch_failed"


class StoreError(MatchError):
    """The store rejected a request or failed."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The store is unavailable; a retry may succeed."""

    code = "store_unavailable"


class StoreUnusable(StoreUnavailable):
    """The store is damaged, or belongs to another program; a retry succeeds after its repair."""


class QueueError(MatchError):
    """The queue or the ledger rejected a request or failed."""

    code = "queue_error"


class QueueUnavailable(QueueError):
    """Redis is unavailable; a retry may succeed."""

    code = "queue_unavailable"


BUSY_RETRY_AFTER_S = 1
"""Seconds after which a slot or memory that running work holds may be free."""


class Overloaded(QueueError):
    """There is no capacity for more work; `retry_after` is in whole seconds."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
