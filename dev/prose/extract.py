"""The prose in Python source: docstrings, comments and messages, as a text whose lines have the source's numbers."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

# Replaces code in a sentence: the rules are for words, not for identifiers.
CODE = "CODE"

# A line number and its text.
Line = tuple[int, str]

_DIRECTIVE = re.compile(r"(?:noqa|type: ignore|mypy|fmt|pragma)\b[^#-]*(?:- ?)?")
_INLINE_CODE = re.compile(r"``?[^`]+``?|\bhttps?://\S+")
# An item of a list, or a row of a table.
_LIST_ITEM = re.compile(r"(?:[-*]|\d+\.) |.*\S {2,}\S")
# Vale does not end a sentence after a number.
_LAST_NUMBER = re.compile(r"[\d.,]*\d\.?$")
# A string that is neither a key, a path nor a query: two words side by side, the first in lower case.
_MESSAGE = re.compile(r"[a-z]{2,},? [A-Za-z]")
# A script in Python, Lua or Go.
_SCRIPT = re.compile(r"^(?:import \w|local \w+ = |package \w+$)", re.MULTILINE)
_QUERY = re.compile(r"\b(?:SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|BEGIN|COMMIT|WHERE)\b|redis\.call|^\s*<")


def extract(source: str) -> str:
    """Return the prose of a Python file; each line has the source's number, and lines without prose are empty.

    Code within the prose is replaced by CODE and examples are left out. Each docstring, comment or message ends a
    sentence. A message of several lines is reported at its first.

    >>> extract('raise ValueError(f"{name} is wrong")  # a reason').strip()
    'A reason. CODE is wrong.'
    """
    tree = ast.parse(source)
    lines: defaultdict[int, list[str]] = defaultdict(list)
    docstrings = dict(_docstrings(tree))
    for fragment in [*docstrings.values(), *_comments(source), *_messages(tree, skip=docstrings)]:
        for number, text in _sentences(fragment):
            lines[number].append(text)
    return "".join(" ".join(lines[number]) + "\n" for number in range(1, max(lines, default=0) + 1))


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Constant, list[Line]]]:
    """Yield each string that is a statement of its own: docstrings, also those of constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines = node.value.value.split("\n")
            yield node.value, list(_without_examples(enumerate(lines, start=node.lineno)))


def _without_examples(lines: Iterator[Line] | enumerate[str]) -> Iterator[Line]:
    """Yield the lines outside doctest examples, which end at an empty line."""
    is_example = False
    for number, text in lines:
        is_example = bool(text.strip()) and (is_example or text.lstrip().startswith(">>>"))
        if not is_example:
            yield number, text


def _comments(source: str) -> Iterator[list[Line]]:
    """Yield each comment; those on consecutive lines, at the same column, are one."""
    block: list[Line] = []
    below = (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, column = token.start
        if (row, column) != below and block:
            yield block
            block = []
        block.append((row, _DIRECTIVE.sub("", token.string.lstrip("#! ").strip())))
        below = (row + 1, column)
    if block:
        yield block


def _messages(tree: ast.Module, *, skip: Mapping[ast.Constant, list[Line]]) -> Iterator[list[Line]]:
    """Yield the strings that read as prose."""
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    others = {part for node in formatted for part in node.values} | {*skip}
    plain = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in others]
    texts = [(node.lineno, node.value) for node in plain if isinstance(node.value, str)]
    texts += [
        (node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else CODE for part in node.values))
        for node in formatted
    ]
    yield from ([(number, " ".join(text.split()))] for number, text in texts if _is_message(text))


def _is_message(text: str) -> bool:
    return _MESSAGE.search(text) is not None and not (_QUERY.search(text) or _SCRIPT.search(text))


def _sentences(fragment: Sequence[Line]) -> Iterator[Line]:
    """Yield the lines with code replaced; paragraphs and items of a list are sentences, so that vale separates them."""
    begins = True
    lines = [(number, _INLINE_CODE.sub(CODE, text.strip())) for number, text in fragment]
    following = [text for _, text in lines[1:]] + [""]
    for (number, text), next_text in zip(lines, following, strict=True):
        ends = not next_text or _LIST_ITEM.match(next_text) is not None
        if text:
            begun = text[:1].upper() + text[1:] if begins else text
            yield number, _ended(begun) if ends else begun
        begins = ends


def _ended(text: str) -> str:
    """Return the text with a full stop at its end, unless it has a mark there that ends a sentence."""
    text = _LAST_NUMBER.sub(f"{CODE}.", text)
    return text if text.endswith((".", "?", "!")) else f"{text.rstrip(':;, ')}."
