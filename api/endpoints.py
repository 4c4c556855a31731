"""What an endpoint is, and how one is bound to its path.

An endpoint declares its parameters as a type of its own, a subclass of `Parameters` (all are in
api/forms/requests.py, or beside the endpoints of one subject):

    class Tasks(Parameters):
        state: Annotated[str, OneOf(("failed", "running")), Field(description="…")]
        limit: Annotated[int, Whole(1, 1000), Field(description="…")] = 100
        id: Annotated[str, InPath()]

(`state` is required, `limit` is not, `id` stands in the path as `<id>`; `InHeader("Name")` marks a header) and is a
function `(services, parameters) -> Response` beside it in a list of `Endpoint`s. The types of single values
(`Whole`, `Number`, `Boolean`, `Filepath`, `Metadata`, `Cursor` …) are in api/forms/parameters.py; a value comes as text
and is wrong by raising `wrong("must be …")`. Query, urlencoded and multipart are read alike; what a request brings
beyond its type is a 400, and so is what its type does not take. An endpoint of several forms, one picture or many, has
a type for each: the first one that knows all names is taken.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request

from api.access.keys import Scope
from api.forms.parameters import Parameters
from api.forms.reading import FORM_PARTS, read, read_query
from api.forms.requests import Nothing
from api.services import Services
from common.config import Settings

# What a form needs beside its pictures.
FORM_BYTES = 256 * 1024
# What it may hold in memory.
FORM_MEMORY_BYTES = 512 * 1024
# The same for each numbered item.
ITEM_BYTES = 16 * 1024
ITEM_PARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an endpoint replies, for its documentation.

    `result` is the type of what the result's list holds, None where it is always empty; `added` are the types of what
    may stand beside the four keys. `errors` are the statuses of failures beyond those that every endpoint has. `keyed`:
    a request may have a key of its sender's. `text` is the media type of a reply that is plain text instead.
    """

    result: Any = None
    added: Mapping[str, Any] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = ()
    keyed: bool = False
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What answers at `path`: `view`, given what the request brings as one of the types `takes`.

    `name` is the reply's "method". `scope` is what a key needs to ask for it; None where none is needed, which each
    endpoint has to say. `limited` says whether requests count for the rate limits. A request has room for `pictures` of
    the largest, and for `items` numbered ones.
    `line` is the type of each line of a body of up to `body_bytes` that is no form: the view reads it.
    """

    name: str
    path: str
    scope: Scope | None
    methods: tuple[str, ...]
    view: Callable[[Services, Any], Response]
    limited: bool = True
    reply: Reply = Reply()
    takes: tuple[type[Parameters], ...] = (Nothing,)
    pictures: int = 0
    items: int = 0
    line: type[Parameters] | None = None
    body_bytes: int = 0


def form_bytes(endpoint: Endpoint, settings: Settings) -> int:
    """Return the size of the largest form that the endpoint takes."""
    # Twice the size of a picture: one that is too large is still read so far that its parameter can be named.
    return FORM_BYTES + 2 * endpoint.pictures * settings.max_image_bytes + endpoint.items * ITEM_BYTES


def bind(
    app: Flask, services: Services, endpoints: Iterable[Endpoint], *, check: Callable[[Scope | None], None]
) -> None:
    """Let each endpoint answer at its path those requests for which `check`, given its scope, raises nothing."""
    for endpoint in endpoints:
        _bind(app, services, endpoint, check)


def _bind(app: Flask, services: Services, endpoint: Endpoint, check: Callable[[Scope | None], None]) -> None:
    most_bytes = endpoint.body_bytes or form_bytes(endpoint, services.settings)

    def answer(**_path: str) -> Response:
        check(endpoint.scope)
        # Itself: each look at it through the proxy takes a microsecond, and reading takes dozens.
        asked = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - the documented way
        asked.max_content_length = most_bytes
        asked.max_form_memory_size = FORM_MEMORY_BYTES + endpoint.items * ITEM_BYTES
        asked.max_form_parts = FORM_PARTS + endpoint.items * ITEM_PARTS
        # The files of large uploads go with the request, not some time later.
        with closing(asked):
            given = (read_query if endpoint.line else read)(asked, endpoint.takes, services.settings)
            return endpoint.view(services, given)

    app.add_url_rule(endpoint.path, endpoint=endpoint.name, view_func=answer, methods=list(endpoint.methods))
