"""The written guarantees: every test that they name exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(test_\w+)`")


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = set(NAMED.findall((ROOT / "docs" / "guarantees.md").read_text()))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }

    assert len(named) > 30
    assert named - there == set()
