"""Names of tests."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MAX_WORDS = 9


def test_names_have_at_most_nine_words() -> None:
    trees = [ast.parse(path.read_text()) for path in TESTS.rglob("test_*.py")]
    names = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}

    assert {name for name in names if len(name.removeprefix("test_").split("_")) > MAX_WORDS} == set()
