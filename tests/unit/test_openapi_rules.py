"""Generators make clients of the whole description; each rule for them reports a document that breaks it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from api.description.openapi import document
from api.routes import SUBJECTS
from common.config import Settings
from support.openapi_rules import problems

FORM = "multipart/form-data"
Body = dict[str, Any]


def with_body(media_type: str, **changes: Any) -> Body:
    """Return a document with one operation, whose body has a file and an array if it is a form."""
    fields = {"image": {"type": "string", "format": "binary"}} if media_type == FORM else {}
    model = {"type": "object", "properties": {"filepath": {"type": "string"}, **fields}} | changes
    media = {"schema": {"$ref": "#/components/schemas/AddBody"}}
    operation = {"operationId": "add", "requestBody": {"content": {media_type: media}}}
    return {"paths": {"/add": {"post": operation}}, "components": {"schemas": {"AddBody": model}}}


def operation(document: Body) -> Any:
    return document["paths"]["/add"]["post"]


def properties(document: Body) -> Any:
    return document["components"]["schemas"]["AddBody"]["properties"]


def add_media_type(document: Body) -> None:
    content = operation(document)["requestBody"]["content"]
    content["application/json"] = content[FORM]


def inline(document: Body) -> None:
    [media] = operation(document)["requestBody"]["content"].values()
    media["schema"] = document["components"]["schemas"].pop("AddBody")


BROKEN: list[tuple[str, Callable[[Body], Any]]] = [
    ("an array without items", lambda one: properties(one).update(a={"type": "array"})),
    ("without its encoding", lambda one: properties(one).update(a={"type": "array", "items": {}})),
    ("an object in a form", lambda one: properties(one).update(a={"type": "object"})),
    ("constants without a type", lambda one: properties(one).update(a={"enum": ["x"]})),
    ("constants without a type", lambda one: properties(one).update(a={"const": "x"})),
    ("a default in a body", lambda one: properties(one).update(a={"type": "string", "default": "x"})),
    ("32 bits", lambda one: properties(one).update(a={"type": "integer"})),
    ("32 bits", lambda one: properties(one).update(a={"type": "number", "format": "float"})),
    ("contentMediaType", lambda one: properties(one).update(a={"type": "string", "contentMediaType": "image/*"})),
    ("a choice of schemas", lambda one: properties(one).update(a={"anyOf": [{"type": "string"}, {"type": "object"}]})),
    ("oneOf in a body", lambda one: one["components"]["schemas"]["AddBody"].update(oneOf=[])),
    ("patternProperties in a body", lambda one: one["components"]["schemas"]["AddBody"].update(patternProperties={})),
    ("several media types", add_media_type),
    ("not a model with a name", inline),
    ("multipart if it has a file", lambda one: properties(one).pop("image")),
    ("not an identifier", lambda one: operation(one).pop("operationId")),
    ("not an identifier", lambda one: operation(one).update(operationId="openapi.json")),
    ("not unique", lambda one: one["paths"].update({"/b": one["paths"]["/add"]})),
    ("webhooks", lambda one: one.update(webhooks={"tasks.ended": {}})),
    ("an enum is a model", lambda one: one["components"]["schemas"].update(A={"type": "string", "enum": ["x"]})),
    ("the name in other cases", lambda one: one["components"]["schemas"].update(ADDBody={})),
    (
        "without the style deepObject",
        lambda one: operation(one).update(parameters=[{"name": "a", "in": "query", "schema": {"type": "object"}}]),
    ),
    (
        "a default in a parameter",
        lambda one: operation(one).update(parameters=[{"name": "a", "in": "query", "schema": {"default": "x"}}]),
    ),
    (
        "the reply 200 is not a model",
        lambda one: operation(one).update(responses={"200": {"content": {"application/json": {"schema": {}}}}}),
    ),
]


@pytest.mark.parametrize("keys", [None, "keys.toml"])
def test_generators_can_use_the_whole_description(keys: str | None) -> None:
    assert problems(document(SUBJECTS, Settings(api_keys_file=keys))) == []


@pytest.mark.parametrize(("text", "break_"), BROKEN)
def test_a_broken_rule_is_reported(text: str, break_: Callable[[Body], Any]) -> None:
    broken = copy.deepcopy(with_body(FORM))
    break_(broken)

    assert [problem for problem in problems(broken) if text in problem]
    assert problems(with_body(FORM)) == []


def test_a_file_in_json_is_reported() -> None:
    files = {"image": {"type": "string", "format": "binary"}}

    assert problems(with_body("application/json", properties=files))
    assert problems(with_body("application/json")) == []
