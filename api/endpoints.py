"""Declaration of endpoints, and their binding to paths of the Flask app.

An endpoint declares its parameters as a subclass of `Parameters`, in api/forms/requests.py or beside its view:

    class Tasks(Parameters):
        state: Annotated[str, OneOf(("failed", "running")), Field(description="…")]
        limit: Annotated[int, Whole(1, 1000), Field(description="…")] = 100
        id: Annotated[str, InPath()]

A parameter without a default is required. `InPath` marks the `<id>` of the path, `InHeader("Name")` a header. The types
of values (`Whole`, `Number`, `Boolean`, `Filepath`, `Metadata`, `Cursor` …) are in api/forms/parameters.py. Each parses
text, and rejects a value with `raise wrong("must be …")`. Parameters of an endpoint that reads or changes images are a
subclass of `InCollection` or `InExistingCollection`: the request's API key must be allowed to use the collection.

The view is a function `(services, params) -> Response`, named in an `Endpoint` of the module's list `ENDPOINTS`.
Parameters come from the query, a JSON object, a urlencoded form or a multipart form alike. An unknown parameter or an
invalid value is a 400. An endpoint with several forms, such as one image or many, has a type for each; the first type
that has all names of the request is used. The description has one body for an endpoint, a multipart form if a parameter
is a file, otherwise JSON: generators make clients of it (tests/support/openapi_rules.py).
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, g, request

from api.access.collections import check_allowed, is_anonymous
from api.access.keys import Scope
from api.forms.json_body import JSON_TYPE
from api.forms.parameters import InCollection, InExistingCollection, Parameters
from api.forms.reading import FORM_PARTS, read, read_query
from api.forms.requests import Nothing
from api.services import Services
from common.config import Settings

# The methods whose parameters are described as a form; those of other methods as a query.
FORM_METHODS = frozenset({"PATCH", "POST", "PUT"})
# Limits of a form without its images, and of its parts that are kept in memory.
FORM_BYTES = 256 * 1024
FORM_MEMORY_BYTES = 512 * 1024
# Added to these limits for each indexed item.
ITEM_BYTES = 16 * 1024
ITEM_PARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The reply of an endpoint, for its documentation.

    `result` is the type of the items of the result's list, None where the list is always empty. `extra` are the types
    of keys beside the four of the envelope. `statuses` are those of success, and `errors` the statuses of failures
    beyond those of every endpoint. A reply with another `media_type` is plain text, without an envelope.
    """

    result: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = ()
    media_type: str = JSON_TYPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint at `path`: `view` receives the request's parameters as one of the types `parameters`.

    `name` is the `method` of the reply. `scope` is the scope that an API key needs; None is open to every request, and
    has no default so that no endpoint is open by mistake. `is_rate_limited`: requests count for the rate limits.
    `is_page`: it is a web page or one of its forms.

    A form has capacity for `images` of the largest size and for `items` with an index. `line` is the type of each line
    of a body of JSON lines, which the view reads itself. It has up to `body_bytes`; a string is the name of the setting
    with the bound.
    """

    name: str
    path: str
    scope: Scope | None
    methods: tuple[str, ...]
    view: Callable[[Services, Any], Response]
    is_rate_limited: bool = True
    is_page: bool = False
    reply: Reply = Reply()
    parameters: tuple[type[Parameters], ...] = (Nothing,)
    images: int = 0
    items: int = 0
    line: type[Parameters] | None = None
    body_bytes: int | str = 0


def max_body_bytes(endpoint: Endpoint, settings: Settings) -> int:
    """Return the maximum size of a request's body."""
    if endpoint.line:
        bound = endpoint.body_bytes
        return int(getattr(settings, bound)) if isinstance(bound, str) else bound
    # A quarter more than an image: the error of one that is slightly too large can then name its parameter and size.
    image_bytes = settings.max_image_bytes * 5 // 4
    return FORM_BYTES + endpoint.images * image_bytes + endpoint.items * ITEM_BYTES


def bind(
    app: Flask, services: Services, endpoints: Iterable[Endpoint], *, check: Callable[[Scope | None], None]
) -> None:
    """Add the endpoints to the app; `check` raises an error unless the request's key has the scope."""
    for endpoint in endpoints:
        _bind(app, services, endpoint, check)


def _bind(app: Flask, services: Services, endpoint: Endpoint, check: Callable[[Scope | None], None]) -> None:
    max_bytes = max_body_bytes(endpoint, services.settings)

    def answer(**_path: str) -> Response:
        check(endpoint.scope)
        # Each access through Flask's proxy takes a microsecond, and parsing has dozens.
        current = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - the documented way
        current.max_content_length = max_bytes
        current.max_form_memory_size = FORM_MEMORY_BYTES + endpoint.items * ITEM_BYTES
        current.max_form_parts = FORM_PARTS + endpoint.items * ITEM_PARTS
        # The temporary files of large uploads are deleted with the request, not by a later garbage collection.
        with closing(current):
            params = (read_query if endpoint.line else read)(current, endpoint.parameters, services.settings)
            if isinstance(params, InCollection):
                _check_collection(services, params)
            return endpoint.view(services, params)

    app.add_url_rule(
        endpoint.path,
        endpoint=endpoint.name,
        view_func=answer,
        methods=list(endpoint.methods),
        # Else // would be the root with a slash behind it.
        strict_slashes=endpoint.path == "/" or None,
    )


def _check_collection(services: Services, params: InCollection) -> None:
    """Raise UnknownCollection unless the request may use the collection, which may have to exist.

    Pages answer a request without a key by a form for the key, which does not depend on the collection.
    """
    if is_anonymous():
        return
    g.collection = params.collection
    check_allowed(params.collection)
    if isinstance(params, InExistingCollection):
        services.collections.check_exists(params.collection)
        g.collection_exists = True
