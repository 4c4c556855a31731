"""The length of paragraphs and table cells in Markdown."""

from collections.abc import Iterator
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from dev.prose.vale import Finding

MAX_PARAGRAPH_WORDS = 60
MAX_CELL_WORDS = 30

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_LIMITS = {
    "paragraph_open": ("paragraph", MAX_PARAGRAPH_WORDS),
    "td_open": ("table cell", MAX_CELL_WORDS),
    "th_open": ("table cell", MAX_CELL_WORDS),
}


def check(path: str, source: str) -> Iterator[Finding]:
    """Yield a finding for each paragraph and table cell with too many words.

    >>> [finding.message for finding in check("page.md", "word " * 61)]
    ['61 words in a paragraph: at most 60']
    """
    for line, kind, limit, words in _texts(_MARKDOWN.parse(source)):
        if words > limit:
            yield Finding(path, line, f"{words} words in a {kind}: at most {limit}", "Lengths")


def _texts(tokens: list[Token]) -> Iterator[tuple[int, str, int, int]]:
    """Yield the line, kind, limit and number of words of each paragraph and cell."""
    line = 0
    for opening, content in pairwise(tokens):
        # A cell has the line of its row.
        line = opening.map[0] + 1 if opening.map else line
        if opening.type in _LIMITS and content.type == "inline":
            yield line, *_LIMITS[opening.type], _words(content)


def _words(content: Token) -> int:
    """Return the number of words as a reader sees them: code counts, the targets of links do not."""
    shown = "".join(" " if child.type.endswith("break") else child.content for child in content.children or ())
    return sum(any(letter.isalnum() for letter in word) for word in shown.split())
