"""The examples in docstrings are right."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    path.relative_to(ROOT)
    for folder in ("api", "common", "workers", "dev")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_docstring_example_is_right(module: Path) -> None:
    results = doctest.testmod(import_module(".".join(module.with_suffix("").parts)))

    assert results.attempted
    assert not results.failed
