"""JSON Schemas of parameters and replies, from their types."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from api.forms.parameters import JSON_TEXT, Indexed, InHeader, InPath, Keyed, Parameters
from common.config import Settings

Json = dict[str, Any]

# Without these formats, clients in Go have numbers of 32 bits.
NUMBERS = {"integer": "int64", "number": "double"}
REF = "#/components/schemas/{model}"


class Schemas:
    """Builds schemas; `shared` contains the models of replies, which other schemas refer to by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.shared: Json = {}

    def reply(self, kind: Any) -> Json:  # noqa: ANN401 - any type that has a schema
        """Return the schema of a reply's type, with references to models."""
        schema: Json = TypeAdapter(kind).json_schema(ref_template=REF)
        models = schema.pop("$defs", {})
        enums = {REF.format(model=name): model for name, model in models.items() if "enum" in model}
        schema, models = _with_enums(schema, enums), _with_enums(models, enums)
        self.shared |= {name: self._plain(model) for name, model in models.items() if "enum" not in model}
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            plain: Json = self._plain(schema)
            return plain
        self.shared[kind.__name__] = self._plain(schema)
        return {"$ref": REF.format(model=kind.__name__)}

    def line(self, name: str, kind: type[Parameters]) -> Json:
        """Return the schema of a line of JSON."""
        schema: Json = self._plain(kind.model_json_schema())
        return self.share(name, schema | {"additionalProperties": False})

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
                        name, location, _without_default(schema), required=required, by_key=_is(field, Keyed)
                    )
        return list(parameters.values())

    def body(self, name: str, types: Sequence[type[Parameters]], *, as_json: bool) -> Json:
        """Return the schema of a body, as a reference to a model of this name; {} without parameters.

        It is one object without alternatives, from which every generator makes one class. If an endpoint accepts
        several forms of a request, no property is required. `as_json`: an object is itself, in a form it is JSON.
        """
        properties: Json = {}
        required: list[str] = []
        for kind in types:
            for field_name, field, schema in self._fields(kind):
                if _location(field) == "query" and field_name not in properties:
                    properties[field_name] = _without_default(_object(schema) if as_json else schema)
                    required += [field_name] * (field.is_required() and len(types) == 1)
        if not properties:
            return {}
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return self.share(name, schema | ({"required": required} if required else {}))

    def files(self, types: Sequence[type[Parameters]]) -> set[str]:
        """Return the names of the parameters that are files."""
        fields = [(name, schema.get("items", schema)) for kind in types for name, _, schema in self._fields(kind)]
        return {name for name, schema in fields if schema.get("format") == "binary"}

    def share(self, name: str, schema: Json) -> Json:
        """Add the schema to the models under this name, and return a reference to it."""
        if self.shared.setdefault(name, schema) != schema:
            raise ValueError(f"two models have the name {name}")
        return {"$ref": REF.format(model=name)}

    def _fields(self, kind: type[Parameters]) -> Iterator[tuple[str, FieldInfo, Json]]:
        schemas = kind.model_json_schema()["properties"]
        for name, field in kind.model_fields.items():
            schema = self._plain(schemas[name])
            for mark in field.metadata:
                if isinstance(mark, Indexed):
                    each = schema["additionalProperties"]
                    if mark.each is not None:
                        each = self._plain(TypeAdapter(mark.each).json_schema())
                    about = {"description": schema["description"]} if "description" in schema else {}
                    schema = {"type": "array", "items": each, "minItems": 1, "maxItems": mark.max_count} | about
            yield name, field, schema

    def _plain(self, schema: Any) -> Any:  # noqa: ANN401 - JSON
        """Return a schema without pydantic's titles, with the limits of the settings and the sizes of numbers."""
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
        for kind, size in NUMBERS.items():
            if plain.get("type") == kind:
                plain.setdefault("format", size)
        return plain


def _parameter(name: str, location: str, schema: Json, *, required: bool, by_key: bool) -> Json:
    about = {"description": schema.pop("description")} if "description" in schema else {}
    style = {"style": "deepObject", "explode": True} if by_key else {}
    return {"name": name, "in": location, "required": required, **about, "schema": schema, **style}


def _without_default(schema: Json) -> Json:
    """Return the schema with its default as text.

    Clients of openapi-generator and openapi-python-client send the default that they were made with, and
    openapi-typescript requires a property with a default.
    """
    if "default" not in schema:
        return schema
    default = json.dumps(schema["default"]).strip('"')
    rest = {name: value for name, value in schema.items() if name != "default"}
    return rest | {"description": f"{schema.get('description', '')} Default: {default}.".lstrip()}


def _object(schema: Json) -> Json:
    """Return the schema of the object itself, if the schema is that of its JSON."""
    if schema.get("format") != JSON_TEXT:
        return schema
    about = {"description": schema["description"]} if "description" in schema else {}
    return {"type": "object", "additionalProperties": True} | about


def _with_enums(value: Any, enums: Mapping[str, Json]) -> Any:  # noqa: ANN401 - JSON
    """Return the schema with these enums in place of references: two enums with one word collide in clients in Go."""
    if isinstance(value, list):
        return [_with_enums(one, enums) for one in value]
    if not isinstance(value, dict):
        return value
    about = {name: _with_enums(one, enums) for name, one in value.items()}
    return enums[about.pop("$ref")] | about if about.get("$ref") in enums else about


def _location(field: FieldInfo) -> str:
    """Return where OpenAPI lists the field (`in`); parameters of the query may also be in a form."""
    return "path" if _is(field, InPath) else "header" if _is(field, InHeader) else "query"


def _is(field: FieldInfo, *marks: type) -> bool:
    return any(isinstance(mark, marks) for mark in field.metadata)


def _is_title(name: str, value: object) -> bool:
    return name == "title" and isinstance(value, str)


def _without_null(choices: Sequence[Json]) -> Json:
    left = [choice for choice in choices if choice != {"type": "null"}]
    return left[0] if len(left) == 1 else {"anyOf": left} if left else {}
