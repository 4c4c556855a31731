"""The docs list every setting and endpoint as the code defines them, and every page renders with working links."""

import re
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic.fields import FieldInfo

from api.endpoints import Endpoint
from api.forms.parameters import InHeader, InPath
from api.routes import ENDPOINTS
from common.config import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
# As GitHub shows them.
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts)
)


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"{value}".lower()
    return "" if value in {None, ()} else f"{value}"


def is_shown(parameter: FieldInfo) -> bool:
    """Return whether a parameter belongs to form or query; headers and path are documented elsewhere."""
    return not any(isinstance(mark, InHeader | InPath) for mark in parameter.metadata)


@cache
def headings(page: Path) -> list[tuple[int, str]]:
    """Return the level and the anchor of each heading, as GitHub makes them."""
    tokens = MARKDOWN.parse(page.read_text())
    pairs = [(token, text) for token, text in pairwise(tokens) if token.type == "heading_open"]
    return [(int(token.tag[1:]), anchor(text)) for token, text in pairs]


def anchor(heading: Token) -> str:
    text = "".join(child.content for child in heading.children or ())
    return re.sub(r"[^\w -]", "", text).strip().lower().replace(" ", "-")


def links(page: Path) -> list[str]:
    """Return the targets of the links and images of a page."""
    tokens = [child for token in MARKDOWN.parse(page.read_text()) for child in token.children or ()]
    return [
        f"{token.attrGet('href') or token.attrGet('src')}" for token in tokens if token.type in {"link_open", "image"}
    ]


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_every_setting_is_documented_with_its_default(setting: Any) -> None:
    spec = setting.metadata

    row = f"| `{spec['name']}` | {shown(setting.default)} | {spec['meaning']} |"

    assert row in SETTINGS


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: f"{endpoint.methods[0]} {endpoint.path}")
def test_every_endpoint_is_documented_with_its_parameters(endpoint: Endpoint) -> None:
    named = {f"{method} {endpoint.path}`" for method in endpoint.methods}
    rows = "".join(row for row in API.splitlines() if row.startswith("| `") and any(name in row for name in named))

    parameters = {name for kind in endpoint.parameters for name, about in kind.model_fields.items() if is_shown(about)}
    assert rows
    assert all(f"`{name}" in rows for name in parameters)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: f"{endpoint.methods[0]} {endpoint.path}")
def test_the_readme_names_every_endpoint(endpoint: Endpoint) -> None:
    assert f"{endpoint.path}`" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_names_an_existing_file_and_heading(page: Path) -> None:
    parsed = [urlsplit(link) for link in links(page)]
    aims = [
        (page.parent / unquote(link.path) if link.path else page, link.fragment) for link in parsed if not link.netloc
    ]

    assert [link.geturl() for link in parsed if link.scheme not in {"", "https", "mailto"}] == []
    assert [str(aim) for aim, _ in aims if not aim.exists()] == []
    anchored = [(aim, fragment) for aim, fragment in aims if fragment]
    assert [aim for aim in anchored if aim[1] not in {name for _, name in headings(aim[0])}] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_has_one_title_and_unique_headings(page: Path) -> None:
    levels = [level for level, _ in headings(page)]
    names = [name for _, name in headings(page)]

    assert levels[:1] == [1]
    assert 1 not in levels[1:]
    assert [pair for pair in pairwise(levels) if pair[1] - pair[0] > 1] == []
    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_renders_without_lost_markup(page: Path) -> None:
    lines = page.read_text().splitlines()
    tokens = MARKDOWN.parse(page.read_text())
    texts = [(opening, text) for opening, text in pairwise(tokens) if text.type == "inline" and opening.map]

    # A paragraph below a table without an empty line becomes a row, and a table without its line of dashes a paragraph.
    rows = [token.map[0] for token in tokens if token.type == "tr_open" and token.map]
    assert [lines[row] for row in rows if not lines[row].lstrip().startswith("|")] == []
    paragraphs = [text.content for opening, text in texts if opening.type == "paragraph_open"]
    assert [text for text in paragraphs if text.startswith("|")] == []
    # A link or an emphasis that is not closed stays as text.
    shown = [child.content for _, text in texts for child in text.children or () if child.type == "text"]
    assert [text for text in shown if "](" in text or "**" in text or "`" in text] == []


def test_a_paragraph_in_a_table_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\nA paragraph.\n")

    with pytest.raises(AssertionError, match=r"A paragraph\."):
        test_every_page_renders_without_lost_markup(page)
