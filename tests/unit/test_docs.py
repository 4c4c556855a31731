"""The README: every setting and every endpoint is in it, as the code has it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from common.config import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
MODULES = [path for folder in ("api", "workers", "common") for path in sorted((ROOT / folder).rglob("*.py"))]


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"{value}".lower()
    return "" if value in {None, ()} else f"{value}"


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_every_setting_is_in_the_readme_with_its_default(setting: Any) -> None:
    spec = setting.metadata

    row = f"| `{spec['name']}` | {shown(setting.default)} | {spec['meaning']} |"

    assert row in README


@pytest.mark.parametrize(
    "path",
    [
        "/add",
        "/add/batch",
        "/delete",
        "/search",
        "/compare",
        "/count",
        "/list",
        "/images",
        "/ping",
        "GET /tasks",
        "/tasks/<id>",
        "/tasks/<id>/retry",
        "/tasks/retry",
        "/docs",
        "/openapi.json",
        "/livez",
        "/readyz",
        "/metrics",
    ],
)
def test_every_endpoint_is_in_the_readme(path: str) -> None:
    assert path in README


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_is_on_the_map(module: Path) -> None:
    inside = module.relative_to(ROOT).parts[1:]

    assert module.name == "__init__.py" or f"`{'/'.join(inside)}`" in ARCHITECTURE
