"""The description of the API in OpenAPI 3.1, from the endpoints and the types of their parameters."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from api.description.callback_docs import call
from api.description.code_samples import code_sample
from api.description.examples import EXAMPLES, FAILURES, Example
from api.description.introduction import SCOPES, introduction
from api.description.schemas import Json, Schemas, is_file
from api.endpoints import FORM_METHODS, Endpoint
from api.errors import BY_STATUS, ERRORS, SUMMARIES
from api.forms.json_body import JSON_TYPE
from api.forms.parameters import InCollection
from api.forms.reading import FORM_TYPES, LINE_TYPES
from api.forms.requests import Enqueuing
from common.config import Settings
from common.version import VERSION

# Errors of every endpoint.
COMMON_ERRORS = (400, 413, 414, 415, 431, 500, 501, 503)
KEY_SCHEME = "key"
# The methods whose parameters are described as a JSON body too.
JSON_METHODS = FORM_METHODS | {"DELETE"}
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
                path[method.lower()] = _operation(endpoint, method, subject, schemas, security) | {"security": security}
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
        "webhooks": {"tasks.ended": {"post": call(schemas, settings)}},
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
                    "schema": {"const": "true"},
                },
                "Location": {"description": "The URL of the task.", "schema": {"type": "string"}},
                "Retry-After": {"description": "In seconds.", "schema": {"type": "integer", "minimum": 0}},
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


def _operation(endpoint: Endpoint, method: str, subject: str, schemas: Schemas, security: Sequence[Json]) -> Json:
    examples = [example for example in EXAMPLES[endpoint.name] if example.method in {"", method}]
    parameters = [
        *schemas.parameters(endpoint.parameters, location="path"),
        *schemas.parameters(endpoint.parameters, location="header"),
    ]
    content: Json = {}
    if method in FORM_METHODS:
        content = _lines(endpoint, examples, schemas) if endpoint.line else _forms(endpoint, examples, schemas)
    if method in JSON_METHODS and not endpoint.line:
        content |= _json(endpoint, examples, schemas)
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
        "requestBody": {
            "required": method in FORM_METHODS and any(_requires(media["schema"]) for media in content.values()),
            "content": content,
        },
        "responses": _responses(endpoint, examples, schemas),
        "x-codeSamples": [
            code_sample(endpoint, method, example, needs_key=bool(security) and {} not in security)
            for example in examples
        ],
    }
    optional = {"description": description, "requestBody": content, "parameters": parameters, "x-codeSamples": examples}
    return {name: value for name, value in operation.items() if optional.get(name, True)}


def _lines(endpoint: Endpoint, examples: Sequence[Example], schemas: Schemas) -> Json:
    shown = {
        example.title: {"value": "".join(f"{json.dumps(line)}\n" for line in example.lines)} for example in examples
    }
    schema = schemas.line(endpoint.line) if endpoint.line else {}
    return {LINE_TYPES[0]: {"schema": schema, "examples": shown}}


def _forms(endpoint: Endpoint, examples: Sequence[Example], schemas: Schemas) -> Json:
    content: Json = {}
    for media_type in FORM_TYPES:
        files = media_type == FORM_TYPES[0]
        schema = schemas.form(endpoint.parameters, files=files)
        if not schema["properties"] and "patternProperties" not in schema:
            return {}
        shown = {one.title: {"value": one.form} for one in examples if one.form and (files or not one.has_files())}
        encoding = {name: {"contentType": "image/*"} for name, one in schema["properties"].items() if is_file(one)}
        content[media_type] = {"schema": schema}
        content[media_type] |= ({"examples": shown} if shown else {}) | ({"encoding": encoding} if encoding else {})
    return content


def _json(endpoint: Endpoint, examples: Sequence[Example], schemas: Schemas) -> Json:
    schema = schemas.json(endpoint.parameters)
    if not schema["properties"]:
        return {}
    shown = {one.title: {"value": one.json()} for one in examples if one.form and not one.has_files()}
    return {JSON_TYPE: {"schema": schema} | ({"examples": shown} if shown else {})}


def _requires(schema: Json) -> bool:
    """Return whether a body is required."""
    return any(name in schema for name in ("required", "oneOf", "allOf"))


def _examples_of(parameter: Json, examples: Sequence[Example]) -> Json:
    """Return the values of a parameter in the path, the query or a header, by example."""
    shown = {one.title: {"value": value} for one in examples if (value := _value(one, parameter["name"])) is not None}
    return {"examples": shown} if shown else {}


def _value(example: Example, name: str) -> Any:  # noqa: ANN401 - JSON
    """Return the value of a parameter, for `name[key]` a dictionary by key; None if the example does not have it."""
    params = {**example.path, **example.headers, **example.form}
    by_key = {key[len(name) + 1 : -1]: value for key, value in params.items() if key.startswith(f"{name}[")}
    return params.get(name, by_key or None)


def _responses(endpoint: Endpoint, examples: Sequence[Example], schemas: Schemas) -> Json:
    responses: Json = {}
    for status in endpoint.reply.statuses:
        shown = {one.title: {"value": _shown(one, endpoint)} for one in examples if one.http_status == status}
        media_type, schema = _body(endpoint, schemas)
        headers = ["X-Request-ID"] + ["Location"] * (status == HTTPStatus.ACCEPTED)
        headers += ["Idempotency-Replayed"] * any(issubclass(kind, Enqueuing) for kind in endpoint.parameters)
        headers += ["RateLimit-Policy", "RateLimit"] * endpoint.is_rate_limited
        responses[f"{status}"] = {
            "description": HTTPStatus(status).phrase,
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
            "content": {media_type: {"schema": schema} | ({"examples": shown} if shown else {})},
        }
    errors = sorted({*COMMON_ERRORS, *endpoint.reply.errors, *_access_errors(endpoint), *_collection_errors(endpoint)})
    return responses | {f"{status}": {"$ref": f"#/components/responses/{status}"} for status in errors}


def _body(endpoint: Endpoint, schemas: Schemas) -> tuple[str, Json]:
    """Return the media type and the schema of a successful reply."""
    if endpoint.line:
        return LINE_TYPES[0], schemas.reply(endpoint.reply.result)
    if endpoint.reply.media_type != JSON_TYPE:
        return endpoint.reply.media_type, {"type": "string"}
    return JSON_TYPE, _envelope(endpoint, schemas)


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
    result = {"maxItems": 0} if reply.result is None else {"items": schemas.reply(reply.result)}
    return {
        "type": "object",
        "properties": {
            "status": {"enum": ["ok", "warn"]},
            "error": {"type": "array", "items": {"type": "string"}},
            "method": {"const": endpoint.name},
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
            "status": {"const": "fail"},
            "error": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "method": {"type": "string"},
            "result": {"type": "array"},
            "code": {"enum": sorted(ERRORS)},
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
