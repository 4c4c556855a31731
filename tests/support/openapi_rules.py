"""Rules for a document of OpenAPI, from which generators then make clients that compile and send the right requests.

Without each of them, one of the generators of `make acceptance` makes a wrong client.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

FILE_TYPE = "multipart/form-data"
# Keywords of a body that have no counterpart in a class with fields.
ALTERNATIVES = ("oneOf", "anyOf", "allOf", "not", "if", "patternProperties", "propertyNames", "dependentSchemas")
NUMBERS = {"integer": "int64", "number": "double"}
MODEL = "#/components/schemas/"
METHODS = ("get", "put", "post", "delete", "patch")


def problems(document: Mapping[str, Any]) -> list[str]:
    """Return a line for each part of the document that a generator cannot use."""
    results = [*_of_models(document), *_of_schemas(document, "")]
    operations = list(_operations(document))
    if document.get("webhooks"):
        results.append("webhooks: describe them as callbacks of an operation")
    names = Counter(operation.get("operationId", "") for _, operation in operations)
    for path, operation in operations:
        name = operation.get("operationId", "")
        if not re.fullmatch("[a-z][a-z0-9_]*", name):
            results.append(f"{path}: the operationId is not an identifier: {name!r}")
        elif names[name] > 1:
            results.append(f"{path}: the operationId is not unique: {name}")
        results += [f"{path}: {problem}" for problem in (*_of_body(document, operation), *_of_replies(operation))]
        results += [f"{path}: {problem}" for problem in _of_parameters(operation)]
    return results


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, methods in document.get("paths", {}).items():
        for method in METHODS:
            if method in methods:
                yield f"{method.upper()} {path}", methods[method]


def _of_models(document: Mapping[str, Any]) -> Iterator[str]:
    models = document.get("components", {}).get("schemas", {})
    folded = Counter(name.casefold() for name in models)
    for name, model in models.items():
        if folded[name.casefold()] > 1:
            yield f"{name}: another model has the name in other cases"
        if "enum" in model:
            yield f"{name}: an enum is a model, whose words collide with those of others in Go"


def _of_schemas(value: Any, path: str) -> Iterator[str]:
    """Yield the problems of all schemas; examples are not schemas."""
    inner = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for name, one in inner:
        if name not in {"examples", "example", "default"}:
            yield from _of_schemas(one, f"{path}/{name}")
    if isinstance(value, dict):
        yield from _of_schema(value, path)


def _of_schema(value: Mapping[str, Any], path: str) -> Iterator[str]:
    if value.get("type") == "array" and "items" not in value:
        yield f"{path}: an array without items"
    if ("const" in value or isinstance(value.get("enum"), list)) and "type" not in value:
        yield f"{path}: constants without a type"
    if any(value.get("type") == kind and value.get("format") != size for kind, size in NUMBERS.items()):
        yield f"{path}: a number without its size has 32 bits in Go"
    for keyword in ("contentMediaType", "contentEncoding"):
        if keyword in value:
            yield f"{path}: {keyword}; a file is a string of the format binary"
    choices = [one for one in (*value.get("anyOf", ()), *value.get("oneOf", ())) if one != {"type": "null"}]
    if len(choices) > 1:
        yield f"{path}: a choice of schemas"


def _of_body(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    if len(content) > 1:
        yield f"several media types of a body: {', '.join(content)}"
    for media_type, media in content.items():
        schema = media["schema"]
        if schema.get("type") == "string":
            continue
        if not schema.get("$ref", "").startswith(MODEL):
            yield "the body is not a model with a name"
        model = document["components"]["schemas"].get(schema.get("$ref", "").removeprefix(MODEL), schema)
        properties = model.get("properties", {})
        yield from (f"{keyword} in a body" for keyword in ALTERNATIVES if keyword in model)
        yield from (f"{name}: a default in a body" for name, one in properties.items() if "default" in one)
        if any(_is_file(one) for one in properties.values()) != (media_type == FILE_TYPE):
            yield f"{media_type}, but a body is multipart if it has a file, else JSON"
        if media_type == FILE_TYPE:
            yield from _of_form(properties, media.get("encoding", {}))


def _of_form(properties: Mapping[str, Any], encoding: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in properties.items():
        if schema.get("type") == "array" and encoding.get(name) != {"style": "form", "explode": True}:
            yield f"{name}: an array in a form without its encoding is one field with commas"
        if schema.get("type") == "object" and schema.get("additionalProperties") != {"type": "string"}:
            yield f"{name}: an object in a form, whose values become text in Go; describe it as a string"


def _of_parameters(operation: Mapping[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        if "default" in parameter["schema"]:
            yield f"{parameter['name']}: a default in a parameter"
        if parameter["schema"].get("type") == "object" and parameter.get("style") != "deepObject":
            yield f"{parameter['name']}: an object in the query without the style deepObject"


def _of_replies(operation: Mapping[str, Any]) -> Iterator[str]:
    for status, response in operation.get("responses", {}).items():
        for media_type, media in response.get("content", {}).items():
            if media_type == "application/json" and not media["schema"].get("$ref", "").startswith(MODEL):
                yield f"the reply {status} is not a model with a name"


def _is_file(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("items", schema).get("format") == "binary")
