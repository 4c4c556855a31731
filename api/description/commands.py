"""The examples of the OpenAPI document as commands that anybody can type, each with its reply."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from api.description.schemas import Json, is_file

# Where `make dev` serves.
HERE = "http://127.0.0.1:8888"


def examples(path: str, method: str, operation: Json) -> Iterator[Json]:
    """Return each example of a request as a command, with the status and the body of its reply."""
    # The first kind of body can bring everything.
    bodies = [*operation.get("requestBody", {}).get("content", {}).items()][:1]
    shown = {title: one["value"] for _, media in bodies for title, one in media.get("examples", {}).items()}
    replies = dict(_replies(operation))
    for title in sorted(replies, key=[*shown, *replies].index):
        status, reply = replies[title]
        url, flags = _request(path, title, operation)
        for media_type, media in bodies:
            flags += _body(shown[title], media["schema"], media_type) if title in shown else []
        method_flag = [] if method == ("POST" if title in shown else "GET") else ["-X", method]
        lines = shown.get(title) if isinstance(shown.get(title), str) else None
        command = shlex.join(["curl", *method_flag, *flags, url]) + (f" <<'END'\n{lines}END" if lines else "")
        yield {"title": title, "command": command, "status": _status(status), "reply": reply}


def _replies(operation: Json) -> Iterator[tuple[str, tuple[str, str]]]:
    """Return the reply of each example, by its title: its status and body."""
    for status, reply in operation["responses"].items():
        for media in reply.get("content", {}).values():
            for title, example in media.get("examples", {}).items():
                yield title, (status, indented(example["value"]))


def _status(status: str) -> str:
    return f"{status} {HTTPStatus(int(status)).phrase}"


def _request(path: str, title: str, operation: Json) -> tuple[str, list[str]]:
    """Return the URL of an example, and the flags for its headers."""
    query: dict[str, str] = {}
    flags: list[str] = []
    for one in operation.get("parameters", ()):
        name, value = one["name"], one.get("examples", {}).get(title, {}).get("value")
        if value is None:
            continue
        if one["in"] == "header":
            flags += ["-H", f"{name}: {value}"]
        elif one["in"] == "path":
            path = path.replace(f"{{{name}}}", _text(value))
        else:
            inside = {f"{name}[{key}]": inner for key, inner in value.items()} if isinstance(value, dict) else None
            query |= {key: _text(inner) for key, inner in (inside or {name: value}).items()}
    return HERE + path + ("?" if query else "") + urlencode(query, safe="/:"), flags


def _body(given: Any, schema: Json, media_type: str) -> list[str]:  # noqa: ANN401 - JSON
    if isinstance(given, str):
        return ["-H", f"Content-Type: {media_type}", "--data-binary", "@-"]
    return [
        flag
        for name, value in given.items()
        for flag in ("-F", f"{name}=@{value}" if _takes_file(schema, name) else f"{name}={_text(value)}")
    ]


def _takes_file(schema: Json, name: str) -> bool:
    patterns: Mapping[str, Json] = schema.get("patternProperties", {})
    return is_file(schema["properties"].get(name)) or any(
        is_file(one) and re.search(key, name) for key, one in patterns.items()
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def indented(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return JSON for people; text, as lines of JSON are, stays as it is."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
