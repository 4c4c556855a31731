"""The service's description with each body in another media type, and with the rules between its parameters.

The description has one media type for each body, and no rule that generators of clients do not know. The service
accepts more, and requires one source of each image. Generated requests need both.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.description.openapi import BODY_METHODS, LINE_SCHEMA
from api.endpoints import Endpoint
from api.forms.json_body import JSON_TYPE, json_types
from api.forms.parameters import JSON_TEXT, Parameters
from api.forms.reading import FORM_TYPES, LINE_TYPES

MULTIPART, URLENCODED = FORM_TYPES
MEDIA_TYPES = (JSON_TYPE, MULTIPART, URLENCODED)
Json = dict[str, Any]


def has_body(endpoint: Endpoint, method: str) -> bool:
    """Return whether the operation has a body, which may be in each of the media types."""
    has_fields = any(kind.plain or kind.keyed for kind in endpoint.parameters)
    return method in BODY_METHODS and endpoint.line is None and has_fields


def in_media_type(document: Mapping[str, Any], endpoints: Iterable[Endpoint], media_type: str) -> Json:
    """Return the document with all bodies in this media type; lines of JSON have the schema of a line."""
    changed = copy.deepcopy(dict(document))
    for endpoint in endpoints:
        path = changed["paths"][endpoint.path.replace("<", "{").replace(">", "}")]
        for method in endpoint.methods:
            if has_body(endpoint, method):
                models = changed["components"]["schemas"]
                path[method.lower()]["requestBody"]["content"] = _content(
                    path[method.lower()], endpoint, models, media_type
                )
            elif endpoint.line:
                [media] = path[method.lower()]["requestBody"]["content"].values()
                path[method.lower()]["requestBody"]["content"] = {LINE_TYPES[0]: {"schema": media[LINE_SCHEMA]}}
    return changed


def _content(operation: Json, endpoint: Endpoint, models: Mapping[str, Any], media_type: str) -> Json:
    [media] = operation["requestBody"]["content"].values()
    model = models[media["schema"]["$ref"].rpartition("/")[2]]
    kinds = json_types(endpoint.parameters) if media_type == JSON_TYPE else endpoint.parameters
    names = {name for kind in kinds for name in (*kind.plain, *kind.keyed)}
    properties = {
        name: _in_json(schema) if media_type == JSON_TYPE else _in_form(schema)
        for name, schema in model["properties"].items()
        if name in names and _is_sent(schema, media_type)
    }
    schema = {"type": "object", "properties": properties, "additionalProperties": False, **_rules(kinds, properties)}
    encoding = {name: {"contentType": "image/*"} for name, one in properties.items() if _is_file(one)}
    if media_type == URLENCODED:
        objects = [name for name, one in properties.items() if one.get("type") == "object"]
        encoding |= {name: {"style": "deepObject", "explode": True} for name in objects}
    return {media_type: {"schema": schema} | ({"encoding": encoding} if encoding else {})}


def _rules(kinds: Sequence[type[Parameters]], properties: Json) -> Json:
    """Return the rules between the properties: those of one of the types, if there are several."""
    if len(kinds) == 1:
        return _rules_of(kinds[0], properties)
    names = [sorted({*kind.plain, *kind.keyed} & properties.keys()) for kind in kinds]
    return {
        "oneOf": [
            {"propertyNames": {"enum": allowed}, **_rules_of(kind, properties)}
            for kind, allowed in zip(kinds, names, strict=True)
        ]
    }


def _rules_of(kind: type[Parameters], properties: Json) -> Json:
    required = [name for name, field in kind.model_fields.items() if field.is_required() and name in properties]
    required += getattr(kind, "first", ())
    groups = getattr(kind, "sources", ())
    if groups and isinstance(groups[0], str):
        groups = (groups,)
    one_each = [{"oneOf": [{"required": [name]} for name in group if name in properties]} for group in groups]
    return {"required": required} | ({"allOf": one_each} if one_each else {})


def _in_json(schema: Json) -> Json:
    return {"type": ["object", "null"]} if schema.get("format") == JSON_TEXT else schema


def _in_form(schema: Json) -> Json:
    return {"type": "string", "format": JSON_TEXT} if schema.get("additionalProperties") is True else schema


def _is_sent(schema: Json, media_type: str) -> bool:
    """Return whether a body of the type has the property: schemathesis sends several files without their names."""
    return not _is_file(schema) or (media_type == MULTIPART and schema["type"] != "array")


def _is_file(schema: Json) -> bool:
    return bool(schema.get("items", schema).get("format") == "binary")
