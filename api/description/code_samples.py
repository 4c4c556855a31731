"""Code samples: each example of a request as a curl command."""

import json
import shlex
from urllib.parse import urlencode

from api.description.examples import Example, File
from api.description.schemas import Json
from api.endpoints import FORM_METHODS, Endpoint
from api.forms.reading import LINE_TYPES

# The address of `make dev`; the page at /docs shows its own instead.
ORIGIN = "http://127.0.0.1:8888"


def code_sample(endpoint: Endpoint, method: str, example: Example, *, needs_key: bool) -> Json:
    """Return the example as an entry of `x-codeSamples`."""
    command = shlex.join([*_words(endpoint, method, example, needs_key=needs_key), _url(endpoint, method, example)])
    lines = "".join(f"{json.dumps(line)}\n" for line in example.lines)
    return {"lang": "Shell", "label": example.title, "source": command + (f" <<'END'\n{lines}END" if lines else "")}


def _words(endpoint: Endpoint, method: str, example: Example, *, needs_key: bool) -> list[str]:
    form = example.form if _has_form(endpoint, method) else {}
    words = ["curl"] if method == ("POST" if form or endpoint.line else "GET") else ["curl", "-X", method]
    headers = {**example.headers, **({"Authorization": "Bearer KEY"} if needs_key else {})}
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    for name, value in form.items():
        words += ["-F", f"{name}=@{value}" if isinstance(value, File) else f"{name}={_text(value)}"]
    if endpoint.line:
        words += ["-H", f"Content-Type: {LINE_TYPES[0]}", "--data-binary", "@-"]
    return words


def _url(endpoint: Endpoint, method: str, example: Example) -> str:
    path = endpoint.path
    for name, value in example.path.items():
        path = path.replace(f"<{name}>", value)
    if _has_form(endpoint, method) or not example.form:
        return ORIGIN + path
    # Brackets are escaped: curl would read them as a range.
    return f"{ORIGIN}{path}?{urlencode({name: _text(value) for name, value in example.form.items()}, safe='/:')}"


def _has_form(endpoint: Endpoint, method: str) -> bool:
    return method in FORM_METHODS and endpoint.line is None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
