"""The error tree: what every failure that Match names itself derives from.

MatchError
├── ConfigError          a setting is wrong; the start stops
├── InputError           a parameter is wrong; names the field
├── ImageError           bytes are no picture that we read; names the reason
├── FetchError           a URL gave no picture; names the reason
├── StoreError           the store refused or broke
│   └── StoreUnavailable the store cannot answer now; the same call may succeed later
└── QueueError           Redis or the queue broke
    ├── QueueUnavailable Redis cannot answer now
    └── Overloaded       accepting more work would endanger what was accepted

A failure that one module alone raises has its class there, below one of these.
`code` is a stable, machine-readable name; the text is for people and holds no secret.
"""


class MatchError(Exception):
    """Root of everything that Match raises on purpose.

    `field` is the name of the parameter that brought the error about, as the client sent it, where one did.
    """

    code = "error"
    field: str | None = None

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ConfigError(MatchError):
    """A setting has a value that cannot work; the message names the setting."""

    code = "wrong_setting"


class InputError(MatchError):
    """A parameter is missing or wrong."""

    code = "wrong_parameter"

    def __init__(self, message: str, *, field: str, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.field = field


class ImageError(MatchError):
    """The bytes cannot be read as a picture within our limits."""

    code = "unreadable_image"


class FetchError(MatchError):
    """A URL gave no bytes within our rules on addresses, time and size."""

    code = "fetch_failed"


class StoreError(MatchError):
    """The store refused a request or broke while serving it."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The store cannot answer now; the same call may succeed later."""

    code = "store_unavailable"


class QueueError(MatchError):
    """The queue or the ledger refused a request or broke while serving it."""

    code = "queue_error"


class QueueUnavailable(QueueError):
    """Redis cannot answer now; the same call may succeed later."""

    code = "queue_unavailable"


class Overloaded(QueueError):
    """Accepting more work now would endanger what was accepted already.

    `retry_after` is in whole seconds.
    """

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
