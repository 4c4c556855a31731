"""The README: every setting and every endpoint is in it, as the code has it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from common.config import Settings

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


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
    "path", ["/add", "/delete", "/search", "/compare", "/count", "/list", "/ping", "/tasks/<id>", "/livez", "/readyz"]
)
def test_every_endpoint_is_in_the_readme(path: str) -> None:
    assert path in README
