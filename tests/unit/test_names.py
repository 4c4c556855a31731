"""Names of tests: at most nine words; `long_names.txt` lists older ones that are longer, and only shrinks."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LISTED = Path(__file__).with_name("long_names.txt")
MOST_WORDS = 9


def test_long_names_are_the_listed_ones() -> None:
    trees = [ast.parse(path.read_text()) for path in TESTS.rglob("test_*.py")]
    names = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}

    long = {name for name in names if len(name.removeprefix("test_").split("_")) > MOST_WORDS}

    assert long == set(LISTED.read_text().split())
