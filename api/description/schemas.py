"""JSON Schemas of parameters and replies, from their types."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from api.forms.json_body import json_type, json_types
from api.forms.parameters import Indexed, InHeader, InPath, Keyed, Parameters
from common.config import Settings

Json = dict[str, Any]

REF = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of a request: properties by name and by pattern, and further rules."""

    properties: Json
    patterns: Json
    rules: Json

    def names(self) -> str:
        """Return a pattern that matches its names only."""
        inside = [re.escape(name) for name in self.properties] + [pattern.strip("^$") for pattern in self.patterns]
        return f"^({'|'.join(inside)})$"


class Schemas:
    """Builds schemas; `shared` contains the models of replies, which other schemas refer to by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.shared: Json = {}

    def reply(self, kind: Any) -> Json:  # noqa: ANN401 - any type that has a schema
        """Return the schema of a reply's type, with references to models."""
        schema: Json = TypeAdapter(kind).json_schema(ref_template=REF)
        self.shared |= {name: self._plain(model) for name, model in schema.pop("$defs", {}).items()}
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            plain: Json = self._plain(schema)
            return plain
        self.shared[kind.__name__] = self._plain(schema)
        return {"$ref": REF.format(model=kind.__name__)}

    def line(self, kind: type[Parameters]) -> Json:
        """Return the schema of a line of JSON."""
        schema: Json = self._plain(kind.model_json_schema())
        return schema | {"additionalProperties": False}

    def parameters(self, types: Sequence[type[Parameters]], *, location: str) -> list[Json]:
        """Return OpenAPI's parameters in the `path`, the `query` or the `header`.

        If an endpoint accepts several forms of a request, no parameter is required.
        """
        parameters: dict[str, Json] = {}
        for kind in types:
            for field_name, field, schema in self._fields(kind):
                if location == _location(field):
                    name = kind.headers.get(field_name, field_name)
                    required = location == "path" or (field.is_required() and len(types) == 1)
                    parameters[name] = _parameter(
                        name, location, schema, required=required, by_key=_is(field, Keyed, Indexed)
                    )
        return list(parameters.values())

    def form(self, types: Sequence[type[Parameters]], *, files: bool) -> Json:
        """Return the schema of a form, with or without files."""
        forms = [self._form(kind, files=files) for kind in types]
        schema: Json = {"type": "object", "properties": {}, "patternProperties": {}, "additionalProperties": False}
        for form in forms:
            schema["properties"] |= form.properties
            schema["patternProperties"] |= form.patterns
        if not schema["patternProperties"]:
            del schema["patternProperties"]
        if len(forms) == 1:
            return schema | forms[0].rules
        return schema | _one_of(forms)

    def json(self, types: Sequence[type[Parameters]]) -> Json:
        """Return the schema of a JSON body."""
        forms = [self._json(kind) for kind in json_types(types)]
        schema: Json = {"type": "object", "properties": {}, "additionalProperties": False}
        for form in forms:
            schema["properties"] |= form.properties
        return schema | (forms[0].rules if len(forms) == 1 else _one_of(forms))

    def _json(self, kind: type[Parameters]) -> _Form:
        properties: Json = {}
        for name, field, schema in self._fields(kind):
            if _location(field) == "query" and not is_file(schema):
                about = {"description": schema["description"]} if "description" in schema else {}
                properties[name] = _json_value(field, schema) | about
        return _Form(properties, {}, _rules(kind, properties))

    def _form(self, kind: type[Parameters], *, files: bool) -> _Form:
        properties: Json = {}
        patterns: Json = {}
        for name, field, schema in self._fields(kind):
            each = schema.get("additionalProperties", schema)
            if _location(field) != "query" or (is_file(each) and not files):
                continue
            about = {"description": schema["description"]} if "description" in schema else {}
            if _is(field, Keyed):
                patterns[rf"^{name}\[.*\]$"] = each | about
            elif _is(field, Indexed):
                properties[f"{name}[0]"] = each | about
                patterns[rf"^{name}\[{_beyond_the_first(field)}\]$"] = each | about
            else:
                properties[name] = schema
        return _Form(properties, patterns, _rules(kind, properties))

    def _fields(self, kind: type[Parameters]) -> Iterator[tuple[str, FieldInfo, Json]]:
        schemas = kind.model_json_schema()["properties"]
        for name, field in kind.model_fields.items():
            schema = self._plain(schemas[name])
            for mark in field.metadata:
                if isinstance(mark, Indexed):
                    numbers = f"^(0|{_beyond_the_first(field)})$"
                    schema |= {"propertyNames": {"pattern": numbers}, "minProperties": 1}
                if isinstance(mark, Indexed) and mark.each is not None:
                    schema["additionalProperties"] = self._plain(TypeAdapter(mark.each).json_schema())
            yield name, field, schema

    def _plain(self, schema: Any) -> Any:  # noqa: ANN401 - JSON
        """Return a schema without pydantic's titles and with the limits of the settings."""
        if isinstance(schema, list):
            return [self._plain(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        plain = {name: self._plain(value) for name, value in schema.items() if not _is_title(name, value)}
        if isinstance(plain.get("maximum"), str):
            plain["maximum"] = getattr(self._settings, plain["maximum"])
        if plain.get("default", ...) is None:
            # The default means an absent value: a form has no null.
            del plain["default"]
            plain |= _without_null(plain.pop("anyOf", []))
        if "x-default" in plain:
            plain["default"] = getattr(self._settings, plain.pop("x-default"))
        return plain


def _parameter(name: str, location: str, schema: Json, *, required: bool, by_key: bool) -> Json:
    about = {"description": schema.pop("description")} if "description" in schema else {}
    style = {"style": "deepObject", "explode": True} if by_key else {}
    return {"name": name, "in": location, "required": required, **about, "schema": schema, **style}


def _rules(kind: type[Parameters], properties: Mapping[str, Json]) -> Json:
    """Return which properties are required: single ones, and one of each group of sources of an image."""
    required = [name for name, field in kind.model_fields.items() if field.is_required() and name in properties]
    required += getattr(kind, "first", ())
    rules: Json = {"required": required} if required else {}
    groups = getattr(kind, "sources", ())
    if groups and isinstance(groups[0], str):
        groups = (groups,)
    one_each = [{"oneOf": [{"required": [name]} for name in group if name in properties]} for group in groups]
    return rules | (one_each[0] if len(one_each) == 1 else {"allOf": one_each} if one_each else {})


def _one_of(forms: Sequence[_Form]) -> Json:
    return {"oneOf": [{"propertyNames": {"pattern": form.names()}} | form.rules for form in forms]}


def _json_value(field: FieldInfo, schema: Json) -> Json:
    """Return the schema of a parameter's value in JSON, from that in a form."""
    for mark in field.metadata:
        if isinstance(mark, Keyed):
            limit = {"maxProperties": schema["maxProperties"]}
            return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}} | limit
        if isinstance(mark, Indexed):
            each = schema["additionalProperties"]
            return {"type": "array", "items": each, "minItems": 1, "maxItems": mark.max_count}
    return {"type": ["object", "null"], "additionalProperties": True} if json_type(schema) == "object" else schema


def _beyond_the_first(field: FieldInfo) -> str:
    """Return a pattern of the indices from 1; the maximum is a power of ten."""
    [max_count] = [mark.max_count for mark in field.metadata if isinstance(mark, Indexed)]
    return f"[1-9][0-9]{{0,{len(str(max_count - 1)) - 1}}}"


def _location(field: FieldInfo) -> str:
    """Return where OpenAPI lists the field (`in`); parameters of the query may also be in a form."""
    return "path" if _is(field, InPath) else "header" if _is(field, InHeader) else "query"


def _is(field: FieldInfo, *marks: type) -> bool:
    return any(isinstance(mark, marks) for mark in field.metadata)


def is_file(schema: Any) -> bool:  # noqa: ANN401 - JSON
    """Return whether the schema is that of a file."""
    return isinstance(schema, dict) and schema.get("contentMediaType") == "application/octet-stream"


def _is_title(name: str, value: object) -> bool:
    return name == "title" and isinstance(value, str)


def _without_null(choices: Sequence[Json]) -> Json:
    left = [choice for choice in choices if choice != {"type": "null"}]
    return left[0] if len(left) == 1 else {"anyOf": left} if left else {}
