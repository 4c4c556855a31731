"""The docs list every setting and endpoint as the code defines them."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from api.endpoints import Endpoint
from api.forms.parameters import InHeader, InPath
from api.routes import ENDPOINTS
from common.config import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
PAGES = sorted(
    page
    for folder in (".", "docs", "docs/decisions", "k8s", "examples", "requirements")
    for page in (ROOT / folder).glob("*.md")
)


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"{value}".lower()
    return "" if value in {None, ()} else f"{value}"


def is_shown(parameter: FieldInfo) -> bool:
    """Return whether a parameter belongs to form or query; headers and path are documented elsewhere."""
    return not any(isinstance(mark, InHeader | InPath) for mark in parameter.metadata)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: its headings in the form that URLs have."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


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
    links = [link.partition("#") for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text())]

    aims = [(page.parent / path if path else page, anchor) for path, _, anchor in links]

    assert [str(aim) for aim, _ in aims if not aim.exists()] == []
    assert [(str(aim), anchor) for aim, anchor in aims if anchor and anchor not in anchors(aim)] == []
