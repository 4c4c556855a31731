"""The description of the API in OpenAPI 3.1, from the endpoints and the types of their parameters."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from api.description.callback_docs import batch_call, call
from api.description.code_samples import code_sample
from api.description.examples import EXAMPLES, FAILURES, Example
from api.description.introduction import SCOPES, introduction
from api.description.schemas import Json, Schemas
from api.endpoints import FORM_METHODS, Endpoint
from api.errors import BY_STATUS, SUMMARIES
from api.forms.json_body import JSON_TYPE, json_names
from api.forms.parameters import InCollection, Parameters
from api.forms.reading import FORM_TYPES, LINE_TYPES
from api.forms.requests import Enqueuing, InBatch
from common.config import Settings
from common.version import VERSION

# Errors of every endpoint.
COMMON_ERRORS = (400, 413, 414, 415, 431, 500, 501, 503)
KEY_SCHEME = "key"
# The methods whose parameters are described as a body; those of DELETE are in the query too.
BODY_METHODS = FORM_METHODS | {"DELETE"}
# The schema of each line of a body of JSON lines, which OpenAPI 3.1 has no key for.
LINE_SCHEMA = "x-line-schema"
BINARY = {"type": "string", "format": "binary"}
OTHER_TYPES = "Also accepted: `multipart/form-data` and `application/x-www-form-urlencoded` with the same names."
OTHER_TYPES_OF_FILES = (
    "Also accepted, without files: `application/x-www-form-urlencoded` with the same names, and `application/json` "
    "with {names}."
)
FOUR_KEYS = ("status", "error", "method", "result")


def document(subjects: Mapping[str, Sequence[Endpoint]], settings: Settings) -> Json:
    """Return the document; of the settings, it contains only limits."""
    schemas = Schemas(settings)
    paths: Json = {}
    for subject, endpoints in subjects.items():
        for endpoint in endpoints:
            path = paths.setdefault(endpoint.path.replace("<", "{").replace(">", "}"), {})
            for method in endpoint.methods:
                security = _security(endpoint, settings)
                callbacks = _callbacks(endpoint, schemas, settings)
                operation = _operation(endpoint, method, subject, schemas, security)
                path[method.lower()] = operation | callbacks | {"security": security}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Match",
            "version": VERSION,
            "summary": "Self-hosted reverse image search",
            "description": introduction(settings),
            "license": {"name": "BSD 3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": subject} for subject in subjects],
        "paths": paths,
        "components": {
            "schemas": {"Failure": _failure_schema(), **dict(sorted(schemas.shared.items()))},
            "responses": {f"{status}": _failure(status) for status in BY_STATUS},
            "headers": {
                "X-Request-ID": {
                    "description": "The id of the request in the service's log.",
                    "schema": {"type": "string"},
                },
                "Idempotency-Replayed": {
                    "description": "All tasks of this reply were accepted before, with the same `Idempotency-Key`. On "
                    "`/add/batch` it means that a batch with this key was sent within the last day, and each line has "
                    "its own `replayed`.",
                    "schema": {"type": "string", "const": "true"},
                },
                "X-Batch-ID": {
                    "description": "The id of the batch in `/batches/{id}`. Present if tasks of it were accepted.",
                    "schema": {"type": "string"},
                },
                "Location": {
                    "description": "The URL of the task, if the reply has one task.",
                    "schema": {"type": "string"},
                },
                "Retry-After": {
                    "description": "In seconds.",
                    "schema": {"type": "integer", "format": "int64", "minimum": 0},
                },
                "RateLimit-Policy": {
                    "description": "The limits of requests (draft-ietf-httpapi-ratelimit-headers-10): the quota `q` in "
                    "`w` seconds. Present if the service has limits.",
                    "schema": {"type": "string", "examples": ['"second";q=100;w=1, "hour";q=5000;w=3600']},
                },
                "RateLimit": {
                    "description": "The rest of the limits: `r` requests, and the seconds `t` until there are more. "
                    "Present if the service has limits and can read them.",
                    "schema": {"type": "string", "examples": ['"second";r=99;t=1, "hour";r=4987;t=1800']},
                },
                "WWW-Authenticate": {
                    "description": "The required API key (RFC 6750).",
                    "schema": {"type": "string"},
                },
                "Allow": {"description": "The methods that the path accepts.", "schema": {"type": "string"}},
            },
            "securitySchemes": {
                KEY_SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"An API key, if the service has keys. A key has some of the scopes {SCOPES}; "
                    "no scope includes another.",
                }
            },
        },
    }


def _security(endpoint: Endpoint, settings: Settings) -> list[Json]:
    """Return the scope that the operation needs; a key is optional where the service has no keys."""
    if endpoint.scope is None:
        return []
    needed: list[Json] = [{KEY_SCHEME: [endpoint.scope.value]}]
    return needed if settings.api_keys_file is not None else [{}, *needed]


def _callbacks(endpoint: Endpoint, schemas: Schemas, settings: Settings) -> Json:
    """Return the requests to the operation's `callback_url`.

    They are not among OpenAPI's `webhooks`, of which openapi-generator makes invalid code.
    """
    if not any(issubclass(kind, Enqueuing) for kind in endpoint.parameters):
        return {}
    url = "$request.query.callback_url" if endpoint.line else "$request.body#/callback_url"
    operation = {"operationId": f"{endpoint.name}_tasks_ended", **call(schemas, settings)}
    callbacks = {"tasks.ended": {f"{{{url}}}": {"post": operation}}}
    if _adds_batches(endpoint):
        operation = {"operationId": f"{endpoint.name}_batch_ended", **batch_call(schemas)}
        callbacks["batch.ended"] = {f"{{{url}}}": {"post": operation}}
    return {"callbacks": callbacks}


def _adds_batches(endpoint: Endpoint) -> bool:
    return any(issubclass(kind, InBatch) for kind in endpoint.parameters)


def _operation(endpoint: Endpoint, method: str, subject: str, schemas: Schemas, security: Sequence[Json]) -> Json:
    examples = [example for example in EXAMPLES[endpoint.name] if example.method in {"", method}]
    parameters = [
        *schemas.parameters(endpoint.parameters, location="path"),
        *schemas.parameters(endpoint.parameters, location="header"),
    ]
    if method not in FORM_METHODS or endpoint.line:
        parameters += schemas.parameters(endpoint.parameters, location="query")
    summary, _, more = (endpoint.view.__doc__ or "").partition("\n\n")
    description = " ".join(more.split())
    if endpoint.scope is not None:
        description += f"\n\nRequires an API key with the scope `{endpoint.scope}` if the service has keys."
    operation: Json = {
        "operationId": endpoint.name if method == endpoint.methods[0] else f"{endpoint.name}_{method.lower()}",
        "summary": summary.rstrip(".").replace("`", ""),  # plain text, where the description is Markdown
        "description": description.strip(),
        "tags": [subject],
        "parameters": [parameter | _examples_of(parameter, examples) for parameter in parameters],
        "requestBody": _request_body(endpoint, method, examples, schemas) if method in BODY_METHODS else {},
        "responses": _responses(endpoint, examples, schemas),
        "x-codeSamples": [
            code_sample(endpoint, method, example, needs_key=bool(security) and {} not in security)
            for example in examples
        ],
    }
    optional = {"description", "requestBody", "parameters", "x-codeSamples"}
    return {name: value for name, value in operation.items() if value or name not in optional}


def _request_body(endpoint: Endpoint, method: str, examples: Sequence[Example], schemas: Schemas) -> Json:
    """Return the body in one media type, since generators make wrong clients of several.

    An endpoint with a file has a multipart form, any other JSON. The description names the types that are accepted too.
    """
    if endpoint.line:
        return {"required": True, "content": {LINE_TYPES[0]: _lines(endpoint, examples, schemas)}}
    files = schemas.files(endpoint.parameters)
    schema = schemas.body(_model(endpoint, "Body"), endpoint.parameters, as_json=not files)
    if not schema:
        return {}
    shown = {one.title: {"value": one.in_form() if files else one.json()} for one in examples if one.form}
    arrays = sorted({name for kind in endpoint.parameters for name in kind.indexed})
    # The default of openapi-generator is one field with commas.
    encoding = {name: {"style": "form", "explode": True} for name in arrays} if files else {}
    media = {"schema": schema, "examples": shown, "encoding": encoding}
    in_json = ", ".join(f"`{name}`" for name in sorted(json_names(endpoint.parameters) - files))
    return {
        "description": OTHER_TYPES_OF_FILES.format(names=in_json) if files else OTHER_TYPES,
        "required": method in FORM_METHODS and any(_needs_body(kind) for kind in endpoint.parameters),
        "content": {FORM_TYPES[0] if files else JSON_TYPE: {name: value for name, value in media.items() if value}},
    }


def _lines(endpoint: Endpoint, examples: Sequence[Example], schemas: Schemas) -> Json:
    """Return the body of JSON lines: a text, with the schema of a line beside it."""
    shown = {
        example.title: {"value": "".join(f"{json.dumps(line)}\n" for line in example.lines)} for example in examples
    }
    line = schemas.line(_model(endpoint, "Line"), endpoint.line) if endpoint.line else {}
    return {"schema": {"type": "string"}, LINE_SCHEMA: line, "examples": shown}


def _model(endpoint: Endpoint, what: str) -> str:
    """Return the name of a model of the endpoint, such as RetryTasksBody."""
    return "".join(word.capitalize() for word in endpoint.name.split("_")) + what


def _needs_body(kind: type[Parameters]) -> bool:
    """Return whether a request without parameters is an error."""
    return hasattr(kind, "sources") or any(field.is_required() for field in kind.model_fields.values())


def _examples_of(parameter: Json, examples: Sequence[Example]) -> Json:
    """Return the values of a parameter in the path, the query or a header, by example."""
    shown = {one.title: {"value": value} for one in examples if (value := _value(one, parameter["name"])) is not None}
    return {"examples": shown} if shown else {}


def _value(example: Example, name: str) -> Any:  # noqa: ANN401 - JSON
    """Return the value of a parameter; None if the example does not have it."""
    return {**example.path, **example.headers, **example.json()}.get(name)


def _responses(endpoint: Endpoint, examples: Sequence[Example], schemas: Schemas) -> Json:
    responses: Json = {}
    for status in endpoint.reply.statuses:
        shown = {one.title: {"value": _shown(one, endpoint)} for one in examples if one.http_status == status}
        media_type, media = _reply(endpoint, schemas)
        headers = ["X-Request-ID"] + ["Location"] * (status == HTTPStatus.ACCEPTED)
        headers += ["Idempotency-Replayed"] * any(issubclass(kind, Enqueuing) for kind in endpoint.parameters)
        headers += ["X-Batch-ID"] * _adds_batches(endpoint)
        headers += ["RateLimit-Policy", "RateLimit"] * endpoint.is_rate_limited
        responses[f"{status}"] = {
            "description": HTTPStatus(status).phrase,
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
            "content": {media_type: media | ({"examples": shown} if shown else {})},
        }
    errors = sorted({*COMMON_ERRORS, *endpoint.reply.errors, *_access_errors(endpoint), *_collection_errors(endpoint)})
    return responses | {f"{status}": {"$ref": f"#/components/responses/{status}"} for status in errors}


def _reply(endpoint: Endpoint, schemas: Schemas) -> tuple[str, Json]:
    """Return the media type of a successful reply, and its schema."""
    if endpoint.line:
        return LINE_TYPES[0], {"schema": {"type": "string"}, LINE_SCHEMA: schemas.reply(endpoint.reply.result)}
    media_type = endpoint.reply.media_type
    if media_type != JSON_TYPE:
        return media_type, {"schema": {"type": "string"} if media_type.startswith("text/") else BINARY}
    return JSON_TYPE, {"schema": schemas.share(_model(endpoint, "Reply"), _envelope(endpoint, schemas))}


def _access_errors(endpoint: Endpoint) -> tuple[int, ...]:
    return (401, 403) * (endpoint.scope is not None) + (429,) * endpoint.is_rate_limited


def _collection_errors(endpoint: Endpoint) -> tuple[int, ...]:
    """Return the status of a collection that is unknown or not the key's."""
    return (404,) * any(issubclass(kind, InCollection) for kind in endpoint.parameters)


def _shown(example: Example, endpoint: Endpoint) -> Any:  # noqa: ANN401 - JSON, or lines of it
    if endpoint.line:
        return "".join(f"{json.dumps(line)}\n" for line in example.result)
    return example.body(endpoint.name)


def _envelope(endpoint: Endpoint, schemas: Schemas) -> Json:
    reply = endpoint.reply
    result = {"items": {}, "maxItems": 0} if reply.result is None else {"items": schemas.reply(reply.result)}
    return {
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["ok", "warn"]},
            "error": {"type": "array", "items": {"type": "string"}},
            "method": {"type": "string", "const": endpoint.name},
            "result": {"type": "array", **result},
            **{name: schemas.reply(kind) for name, kind in reply.extra.items()},
        },
        "required": [*FOUR_KEYS],
    }


def _failure_schema() -> Json:
    return {
        "description": "A failure; it may have more keys.",
        "type": "object",
        "properties": {
            "status": {"type": "string", "const": "fail"},
            "error": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "method": {"type": "string"},
            "result": {"type": "array", "items": {}},
            # Not an enum: a class that a generator made of it would reject the codes of later versions.
            "code": {"type": "string", "description": "The reason, for programs. New ones may be added."},
            "field": {"type": "string", "description": "The parameter that caused the error."},
        },
        "required": [*FOUR_KEYS, "code"],
    }


def _failure(status: int) -> Json:
    headers = ["X-Request-ID"]
    headers += ["Retry-After"] * (status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
    headers += ["RateLimit-Policy", "RateLimit"] * (status == HTTPStatus.TOO_MANY_REQUESTS)
    headers += ["WWW-Authenticate"] * (status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
    headers += ["Allow"] * (status == HTTPStatus.METHOD_NOT_ALLOWED)
    codes = "\n".join(f"- `{spec.code}`: {spec.text}" for spec in BY_STATUS[status])
    return {
        "description": f"{SUMMARIES[status]}\n\n{codes}",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Failure"},
                "examples": {one.title: {"value": one.body()} for one in FAILURES if one.http_status == status},
            }
        },
    }
