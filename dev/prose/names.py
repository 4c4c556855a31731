"""Names in Python source that docs/style/names.toml replaces."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from dev.prose.vale import ROOT, Finding

_TABLES = tomllib.loads((ROOT / "docs" / "style" / "names.toml").read_text())
WORDS: dict[str, str] = _TABLES["words"]
"""Words that no name contains, each with its replacement."""
NAMES: dict[str, str] = _TABLES["names"]
"""Whole names, without their leading underscores, each with its replacement."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def replacement(name: str) -> str | None:
    """Return the name to use instead, as a hint; None where `name` may stay.

    >>> replacement("_found"), replacement("not_found"), replacement("PictureStore")
    ('matches, existing or results', None, 'image')
    """
    if name.startswith("__"):
        return None
    if hint := NAMES.get(name.strip("_")):
        return hint
    return next((WORDS[word.lower()] for word in _WORD.findall(name) if word.lower() in WORDS), None)


def check(path: str, source: str) -> Iterator[Finding]:
    """Yield a finding for each replaced name that the file, or its own name, declares; once for each name."""
    stem = Path(path).stem
    for name, line in {stem: 1, **dict(_declared(ast.parse(source)))}.items():
        if hint := replacement(name):
            yield Finding(path, line, f"the name {name}: use {hint} instead.", "Names")


def _declared(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield functions, classes, parameters, variables and attributes that the file binds."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case _:
                pass
