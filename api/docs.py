"""The reference page: the OpenAPI document as one page of HTML that needs no script and nothing from elsewhere."""

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from api.schemas import Json, is_file

TEMPLATES = Path(__file__).parent / "templates"
STYLE = (TEMPLATES / "docs.css").read_text()
# Where `make dev` serves.
HERE = "http://127.0.0.1:8888"
# The style by its hash, and nothing else: what a reply may have brought into the page could do nothing there.
POLICY = "; ".join(
    [
        "default-src 'none'",
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
        failures=list(_failures(document)),
    )


def prose(text: str) -> Markup:
    """Return paragraphs, lists and `code` as HTML.

    >>> prose("See `a<b`.")
    Markup('<p>See <code>a&lt;b</code>.</p>')
    """
    return Markup("\n").join(_block(block) for block in text.split("\n\n") if block)


def _block(block: str) -> Markup:
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
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            replies = {status: reply for status, reply in operation["responses"].items() if "content" in reply}
            yield {
                "id": operation["operationId"],
                "subject": operation["tags"][0],
                "method": method.upper(),
                "path": path,
                "summary": operation["summary"],
                "description": operation.get("description", ""),
                "rows": [*_parameter_rows(operation.get("parameters", ())), *_body_rows(content)],
                "types": " or ".join(content),
                "statuses": ", ".join(replies),
                "scope": _scope(operation["security"]),
                "failures": [status for status in operation["responses"] if status not in replies],
                "examples": list(_examples(path, method.upper(), operation, content, replies)),
            }


def _scope(security: Sequence[Json]) -> str:
    """Return the scope that a key needs, empty where none is needed."""
    return next((scope for one in security for scopes in one.values() for scope in scopes), "")


def _parameter_rows(parameters: Any) -> Iterator[Json]:  # noqa: ANN401 - JSON
    for parameter in parameters:
        by_key = parameter.get("style") == "deepObject"
        key = "0" if "propertyNames" in parameter["schema"] else "key"
        yield {
            "name": f"{parameter['name']}[{key}]" if by_key else parameter["name"],
            "required": parameter["required"],
            "value": _value(parameter["schema"]["additionalProperties"] if by_key else parameter["schema"]),
            "meaning": parameter.get("description", ""),
        }


def _body_rows(content: Mapping[str, Json]) -> Iterator[Json]:
    """Return the parameters of the first kind of body, which has them all."""
    for media in [*content.values()][:1]:
        schema = media["schema"]
        for name, one in schema["properties"].items():
            required = name in schema.get("required", ())
            yield {"name": name, "required": required, "value": _value(one), "meaning": one.get("description", "")}
        for pattern, one in schema.get("patternProperties", {}).items():
            if ".*" in pattern:
                name = pattern.strip("^$").replace("\\", "").replace(".*", "key")
                yield {"name": name, "required": False, "value": _value(one), "meaning": one.get("description", "")}


def _value(schema: Json) -> str:
    """Return in a few words what a value may be."""
    if is_file(schema):
        return "file"
    if "enum" in schema:
        return ", ".join(schema["enum"])
    kind = "JSON" if schema.get("contentMediaType") == "application/json" else str(schema.get("type", ""))
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f" from {_figure(low)} to {_figure(high)}" if low is not None and high is not None else ""
    default = f", default {json.dumps(schema['default'])}" if "default" in schema else ""
    return f"{kind}{bounds}{default}"


def _figure(number: float) -> str:
    """Return the number with all its digits.

    >>> _figure(2**53), _figure(60.0), _figure(0.5)
    ('9007199254740992', '60', '0.5')
    """
    return f"{int(number)}" if number == int(number) else f"{number:g}"


def _examples(path: str, method: str, operation: Json, content: Mapping[str, Json], replies: Json) -> Iterator[Json]:
    """Return a command for each example of a request, with the reply of the same title where there is one."""
    told = {
        title: _indented(example["value"])
        for reply in replies.values()
        for media in reply["content"].values()
        for title, example in media.get("examples", {}).items()
    }
    # The first kind of body can bring everything.
    for media_type, media in [*content.items()][:1]:
        for title, example in media.get("examples", {}).items():
            command = _command(path, example["value"], media["schema"], media_type)
            yield {"title": title, "command": command, "reply": told.get(title)}
    if not content:
        query = {one["name"]: one["example"] for one in operation.get("parameters", ()) if "example" in one}
        for title, reply in [*told.items()][:1]:
            yield {"title": title, "command": _query_command(path, method, query), "reply": reply}


def _command(path: str, given: Any, schema: Json, media_type: str) -> str:  # noqa: ANN401 - JSON
    if isinstance(given, str):
        return f"curl --data-binary @- -H 'Content-Type: {media_type}' {HERE}{path} <<'END'\n{given}END"
    parts = [
        f"-F {shlex.quote(f'{name}=@{value}' if _takes_file(schema, name) else f'{name}={_text(value)}')}"
        for name, value in given.items()
    ]
    return f"curl {' '.join(parts)} {HERE}{path}"


def _takes_file(schema: Json, name: str) -> bool:
    patterns = schema.get("patternProperties", {}).items()
    return is_file(schema["properties"].get(name)) or any(
        is_file(one) and re.search(key, name) for key, one in patterns
    )


def _query_command(path: str, method: str, given: Mapping[str, Any]) -> str:
    flat: dict[str, str] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            flat |= {f"{name}[{key}]": _text(inner) for key, inner in value.items()}
        elif f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", _text(value))
        else:
            flat[name] = _text(value)
    how = "" if method == "GET" else f"-X {method} "
    return f"curl {how}{shlex.quote(HERE + path + ('?' if flat else '') + urlencode(flat))}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _indented(value: Any) -> str:  # noqa: ANN401 - JSON
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _failures(document: Json) -> Iterator[Json]:
    for status, response in document["components"]["responses"].items():
        examples = response["content"]["application/json"]["examples"]
        yield {
            "status": status,
            "description": response["description"],
            "examples": [_indented(example["value"]) for example in examples.values()],
        }
