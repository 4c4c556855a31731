"""The reference page: the OpenAPI document as one page of HTML that needs no script and nothing from elsewhere."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from api.description.commands import examples, indented
from api.description.examples import CALL_BODY, CALL_SECRET
from api.description.schemas import Json, is_file
from api.forms.reading import LINE_TYPES

TEMPLATES = Path(__file__).parent / "templates"
STYLE = (TEMPLATES / "docs.css").read_text()
# The style by its hash, and nothing else: what a reply may have brought into the page could do nothing there.
POLICY = "; ".join(
    [
        "default-src 'none'",
        # The icon, which is empty: browsers would ask for one, and tell of what they may not load.
        "img-src data:",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


def page(document: Json) -> str:
    """Return the page."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    environment.filters["prose"] = prose
    return environment.get_template("docs.html").render(
        info=document["info"],
        style=Markup(STYLE),  # noqa: S704 - our own file
        operations=list(_operations(document)),
        calls=[_call(name, methods["post"], document) for name, methods in document["webhooks"].items()],
        models=list(_models(document)),
        failures=list(_failures(document)),
    )


def prose(text: str) -> Markup:
    """Return headings, paragraphs, lists and `code` as HTML.

    >>> prose("See `a<b`.")
    Markup('<p>See <code>a&lt;b</code>.</p>')
    """
    return Markup("\n").join(_block(block) for block in text.split("\n\n") if block)


def _block(block: str) -> Markup:
    if block.startswith("## "):
        return Markup("<h3>{}</h3>").format(_inline(block[3:]))
    if not block.startswith("- "):
        return Markup("<p>{}</p>").format(_inline(block))
    items = Markup("").join(Markup("<li>{}</li>").format(_inline(line[2:])) for line in block.splitlines())
    return Markup("<ul>{}</ul>").format(items)


def _inline(text: str) -> Markup:
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def _operations(document: Json) -> Iterator[Json]:
    models = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            replies = {status: reply for status, reply in operation["responses"].items() if "content" in reply}
            yield {
                "id": operation["operationId"],
                "subject": operation["tags"][0],
                "method": method.upper(),
                "path": path,
                "summary": operation["summary"],
                "description": operation.get("description", ""),
                "tables": [*_request_tables(operation, models), *_reply_table(replies, document)],
                "statuses": ", ".join(replies),
                "scope": _scope(operation["security"]),
                "failures": [status for status in operation["responses"] if status not in replies],
                "examples": list(examples(path, method.upper(), operation)),
            }


def _call(name: str, operation: Json, document: Json) -> Json:
    """Return what a receiver of callbacks has to know, with a call whose signature is right to its last byte."""
    headers = {one["name"]: one["example"] for one in operation["parameters"]}
    return {
        "id": operation["operationId"],
        "name": name,
        "summary": operation["summary"],
        "description": operation["description"],
        "tables": list(_request_tables(operation, document["components"]["schemas"])),
        "secret": CALL_SECRET,
        "request": "\n".join([*(f"{name}: {value}" for name, value in headers.items()), "", CALL_BODY]),
    }


def _models(document: Json) -> Iterator[Json]:
    """Return the objects that replies hold; one of some words stands where it is used, a failure in its own place."""
    models = document["components"]["schemas"]
    for name, schema in models.items():
        if "properties" in schema and name != "Failure":
            yield {"name": name, "description": schema["description"], "rows": list(_rows(schema, models))}


def _scope(security: Sequence[Json]) -> str:
    """Return the scope that a key needs, empty where none is needed."""
    return next((scope for one in security for scopes in one.values() for scope in scopes), "")


def _request_tables(operation: Json, models: Json) -> Iterator[Json]:
    """Return what a request may bring, by where it stands."""
    parameters = operation.get("parameters", ())
    content = operation.get("requestBody", {}).get("content", {})
    for title, place in (("Path", "path"), ("Query", "query")):
        yield from _table(title, (_parameter_row(one, models) for one in parameters if one["in"] == place))
    # The first kind of body can bring everything.
    for media_type, media in [*content.items()][:1]:
        title = f"Each line ({media_type})" if media_type in LINE_TYPES else f"Body ({' or '.join(content)})"
        yield from _table(title, _body_rows(media["schema"], models))
    yield from _table("Headers", (_parameter_row(one, models) for one in parameters if one["in"] == "header"))


def _reply_table(replies: Mapping[str, Json], document: Json) -> Iterator[Json]:
    """Return what successful replies hold beside what all of them do."""
    models = document["components"]["schemas"]
    for media_type, media in [*next(iter(replies.values()))["content"].items()]:
        if media_type in LINE_TYPES:
            rows = [_row("each line", media["schema"], models)]
        else:
            rows = [row for row in _rows(media["schema"], models) if row["name"] not in {"status", "error", "method"}]
        headers = dict.fromkeys(name for reply in replies.values() for name in reply["headers"])
        told = {name: document["components"]["headers"][name] for name in headers if name != "X-Request-ID"}
        for name, header in told.items():
            row = _row(name, header["schema"], models, note="header")
            rows.append(row | {"meaning": header["description"]})
        yield from _table(f"Reply ({media_type})", rows)


def _table(title: str, rows: Iterable[Json]) -> Iterator[Json]:
    """Return the table, if there is anything in it."""
    if found := list(rows):
        yield {"title": title, "rows": found}


def _parameter_row(parameter: Json, models: Json) -> Json:
    name, schema = parameter["name"], parameter["schema"]
    if parameter.get("style") == "deepObject":
        name += "[0]" if "propertyNames" in schema else "[key]"
        schema = schema["additionalProperties"]
    row = _row(name, schema, models, note="required" if parameter["required"] else "")
    return row | {"meaning": parameter.get("description", "")}


def _body_rows(schema: Json, models: Json) -> Iterator[Json]:
    if "$ref" in schema:
        yield _row("the whole", schema, models)
        return
    for name, one in schema["properties"].items():
        yield _row(name, one, models, note="required" if name in schema.get("required", ()) else "")
    for pattern, one in schema.get("patternProperties", {}).items():
        if ".*" in pattern:
            yield _row(pattern.strip("^$").replace("\\", "").replace(".*", "key"), one, models)


def _rows(schema: Json, models: Json) -> Iterator[Json]:
    """Return what an object of a reply holds."""
    for name, one in schema.get("properties", {}).items():
        yield _row(name, one, models, note="" if name in schema["required"] else "not always")


def _row(name: str, schema: Json, models: Json, *, note: str = "") -> Json:
    return {"name": name, "note": note, "value": _value(schema, models), "meaning": _meaning(schema, models)}


def _meaning(schema: Json, models: Json) -> str:
    """Return what is said of a value, else of what it holds."""
    held = schema.get("items", {})
    model = models.get((schema.get("$ref") or held.get("$ref", "")).rpartition("/")[2], {})
    return str(schema.get("description") or held.get("description") or model.get("description", ""))


def _value(schema: Json, models: Json) -> Markup:
    """Return in a few words what a value may be; a model by its link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _value(models[name], models) if "enum" in models[name] else Markup("<a href=#{0}>{0}</a>").format(name)
    if "anyOf" in schema:
        return Markup(" or ").join(_value(one, models) for one in schema["anyOf"])
    if "items" in schema:
        return Markup("list of {}").format(_value(schema["items"], models))
    return escape(_plain_value(schema))


def _plain_value(schema: Json) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(schema.get("enum") or [schema["const"]])
    if schema.get("maxItems") == 0:
        return "empty list"
    kind = "JSON" if schema.get("contentMediaType") == "application/json" else str(schema.get("type", ""))
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f" from {_figure(low)} to {_figure(high)}" if low is not None and high is not None else ""
    default = f", default {json.dumps(schema['default'])}" if "default" in schema else ""
    return "file" if is_file(schema) else f"{kind}{bounds}{default}"


def _figure(number: float) -> str:
    """Return the number with all its digits.

    >>> _figure(2**53), _figure(60.0), _figure(0.5)
    ('9007199254740992', '60', '0.5')
    """
    return f"{int(number)}" if number == int(number) else f"{number:g}"


def _failures(document: Json) -> Iterator[Json]:
    for status, response in document["components"]["responses"].items():
        examples = response["content"]["application/json"]["examples"]
        yield {
            "status": status,
            "description": response["description"],
            "examples": [indented(example["value"]) for example in examples.values()],
        }
