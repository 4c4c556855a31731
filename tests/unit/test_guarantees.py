"""docs/guarantees.md: each row names a test, and every named test exists."""

import re
from pathlib import Path

from kombu.transport.redis import Channel

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(test_\w+)`")


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = set(NAMED.findall((ROOT / "docs" / "guarantees.md").read_text()))
    existing = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }

    assert len(named) > 30
    assert named - existing == set()


def test_figure_of_plain_celery_is_its_default() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()

    [figure] = re.findall(r"Plain Celery on Redis .*`visibility_timeout`, which is ([\d,]+) s", text)
    assert int(figure.replace(",", "")) == Channel.visibility_timeout


def test_every_promise_in_a_table_names_its_test() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    tables = [table for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE) if "| test |\n" in table]
    rows = [row for table in tables for row in table.splitlines()[2:]]

    unshown = [row for row in rows if not NAMED.search(row.split(" | ")[-1])]

    assert len(rows) > 50
    assert unshown == []
