"""The check of prose and names: the sentences and names that it reports, and those that it accepts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from dev import go_builds
from dev.prose import lengths, names, vale
from dev.prose.__main__ import COVERED, files, main
from dev.prose.extract import extract
from dev.prose.vale import VALE

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()

BEFORE = [
    "Two doors, one house. `api/` is the door for people and programs that speak HTTP",
    "What was measured and what is computed from it is said each time.",
    "vectors that a search with hnsw looks at in each shard, at least: more find more and take longer",
    "because looking for sixteen pictures finds more strangers than looking for one",
    "Places at hosts: each is given back when its download is over, and who waited for it is sent.",
    "A task that was there may be this very order's: the ledger was asked twice, and answered once.",
]
AFTER = [
    "Match is two services, `api` and `workers`, over one shared core.",
    "Each figure is marked measured or computed.",
    "`num_candidates` per shard for HNSW searches. Higher values raise recall and latency.",
    "because sixteen queries produce more false positives than one",
    "Per-host download slots. A slot is released after each download, and the next waiting task is enqueued.",
    "The existing task may be our own: redis-py may have retried a call whose first reply was lost.",
]
ERRORS_BEFORE = [
    "the request is no HTTP that can be answered",
    "the API key is none that is known",
    "the request did not come in within its time",
    "this key came before, for something else",
    "the body ended before its time",
    "What was asked for is not there.",
    "the body is sent in a coding that is not read",
    "a fault of ours",
    "too much is coming in at once",
    "does not speak TLS as we do",
]
ERRORS_AFTER = [
    "malformed HTTP request",
    "invalid API key",
    "request timed out before it was complete",
    "Idempotency-Key was already used with a different request",
    "the body ended early",
    "not found",
    "unsupported transfer encoding",
    "internal error",
    "server overloaded, retry later",
    "TLS handshake failed",
]
PRIVATE_WORDS = [
    *("HTTP door", "queue door", "both doors", "rooms", "floors"),
    *("the place of a request", "the order of requests", "a place at a host", "HostPlaces", "crowded", "parked"),
    *("woken", "count_at", "Settlement", "DeadlyImage", "image_ends_worker", "Tidying", "make_room"),
    *("Refusal", "NOWHERE", "Told", "told", "tell", "InsistingClient", "insist", "EVEN_WHEN_FULL"),
    *("vet", "judged", "admits", "Dialer", "picture", "Vitals", "Figures", "restamp", "take_back_stamps"),
    *("sent_before", "MATCH_ELASTICSEARCH_BREADTH", "strangers", "whoever", "says", "standing", "alone"),
    *("save for the last", "ours", "theirs", "such", "the house", "the picture that is there"),
]
PRIVATE_NAMES = [
    *("place", "Hosts", "HostPlaces", "leave", "wake", "crowded", "parked", "woken", "Places", "count_at"),
    *("Settlement", "settle", "End", "Closing", "spare", "risk", "survived", "DeadlyImage", "image_ends_worker"),
    *("Tidying", "make_room", "empty", "Turns", "signals", "Signals", "Refusal", "REFUSED", "Wanted", "Order"),
    *("Origin", "NOWHERE", "Entry", "Entered", "Known", "enter", "Told", "told", "tell", "given", "there", "found"),
    *("came", "held", "passage", "searching", "batching", "InsistingClient", "insist", "EVEN_WHEN_FULL", "vet"),
    *("judged", "admits", "Dialer", "picture", "Vitals", "Figures", "Parts", "wire", "restamp", "take_back_stamps"),
    *("sent_before", "elasticsearch_breadth", "strangers"),
]
KEPT = [
    "There is no such file: the client may retry it later, and the standalone server is reused.",
    "The ledger, the sweeper, the outbox, a tombstone, the claim of a task, and the circuit breaker.",
    "The number is no longer than 20 digits, such as 1 or 12.",
    "Which host does the URL name? The one before the port.",
    "A store is reported as unavailable, and a placeholder takes its place.",
    "The documents are saved in one bulk request, which Elasticsearch answers per item.",
]


@pytest.fixture(scope="session")
def alerts(give_up: Callable[[str], NoReturn], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    program = VALE.find() or give_up("no vale: `make lint` builds it where Go and a C compiler are")
    folder = tmp_path_factory.mktemp("sentences")
    texts = [*BEFORE, *AFTER, *ERRORS_BEFORE, *ERRORS_AFTER, *PRIVATE_WORDS, *KEPT]
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(extract(f"# {text}"))
    findings = vale.run(program, [f"{number}.txt" for number in range(len(texts))], folder=folder)
    return lambda text: [one.message for one in findings if one.path == f"{texts.index(text)}.txt"]


@pytest.mark.parametrize("text", [*BEFORE, *ERRORS_BEFORE, *PRIVATE_WORDS])
def test_private_language_is_reported(alerts: Callable[[str], list[str]], text: str) -> None:
    assert alerts(text)


@pytest.mark.parametrize("text", [*AFTER, *ERRORS_AFTER, *KEPT])
def test_plain_english_is_not_reported(alerts: Callable[[str], list[str]], text: str) -> None:
    assert alerts(text) == []


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_private_name_has_a_replacement(name: str) -> None:
    assert names.replacement(name)


@pytest.mark.parametrize("name", ["not_found", "matches", "is_held", "replace", "placeholder", "__enter__", "Ledger"])
def test_ordinary_name_may_stay(name: str) -> None:
    assert names.replacement(name) is None


def test_every_kind_of_name_is_checked() -> None:
    source = """
def tell(given, *, held): ...
class Told:
    def __init__(self):
        self._found: int = 1
for picture in ():
    there = 0
import os as came
try: ...
except OSError as vet: ...
"""

    findings = [*names.check("common/dialing.py", source)]

    reported = {finding.message.split()[2].rstrip(":"): finding.line for finding in findings}
    first = {"dialing": 1, "tell": 2, "given": 2, "held": 2, "Told": 3, "_found": 5, "picture": 6, "there": 7}
    assert reported == first | {"came": 8, "vet": 10}


def test_prose_keeps_its_line_in_the_source() -> None:
    source = '''"""First line.

Third, with `code`.

>>> example()
"""

x = 1  # noqa: S101 - a reason
# A comment
# of two lines
raise ValueError(
    f"{x} is "
    "wrong"
)
SQL = "SELECT id FROM images"
SCRIPT = "import sys; sys.exit(is not code)"
'''

    text = extract(source)

    assert text.splitlines() == [
        *("First line.", "", "Third, with CODE.", "", "", "", ""),
        *("A reason.", "A comment", "of two lines.", "", "CODE is wrong."),
    ]


@pytest.fixture
def private_file(tmp_path: Path) -> Path:
    path = tmp_path / "private.py"
    path.write_text('"""Whoever asks."""\n')
    return path


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_missing_vale_fails_only_in_ci(
    ci: str,
    status: int,
    private_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(go_builds, "find_go", lambda: None)
    monkeypatch.setattr(sys, "argv", ["prose", f"{private_file}"])
    for name, value in (("CI", ci), ("PATH", "/nowhere"), ("XDG_CACHE_HOME", f"{private_file.parent}")):
        monkeypatch.setenv(name, value)

    returned = main()

    assert returned == status
    assert "prose is not checked: no vale on PATH, and no Go to build it with" in capsys.readouterr().err


def long_findings(source: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.message) for finding in lengths.check("page.md", source)]


@pytest.mark.parametrize("prefix", ["", "- ", "> ", "1. "])
def test_paragraphs_of_more_than_sixty_words_are_found(prefix: str) -> None:
    page = f"# Title\n\n{prefix}{'word ' * 60}\n\n{prefix}{'word ' * 30}`a b` [{'link ' * 29}](page.md)\n"

    assert long_findings(page) == [(5, "61 words in a paragraph: at most 60")]


def test_cells_of_more_than_thirty_words_are_found() -> None:
    rows = [f"| {'word ' * 30}| {'word ' * 30}|", "|---|---|", f"| short | {'word ' * 31}|"]

    assert long_findings("\n".join(rows)) == [(3, "31 words in a table cell: at most 30")]


def test_code_blocks_may_be_long() -> None:
    assert long_findings(f"```sh\n{'word ' * 100}\n```\n") == []


def test_every_page_of_markdown_is_checked() -> None:
    hidden_or_foreign = {path for pattern in (".*/**/*.md", "**/node_modules/**/*.md") for path in ROOT.glob(pattern)}

    pages = {path.relative_to(ROOT) for path in {*ROOT.rglob("*.md")} - hidden_or_foreign}

    assert len(pages) > 40
    assert pages - {*files(COVERED)} == set()


PRIVATE_FILES = {
    "private.py": "x = 1  # two pictures\n",
    "private.lua": "-- two pictures\nreturn 1\n",
    "private.md": "two pictures, not `pictures`\n",
}


@pytest.mark.usefixtures("alerts")
@pytest.mark.parametrize("name", PRIVATE_FILES)
def test_finding_names_file_and_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text(PRIVATE_FILES[name])
    monkeypatch.setattr(sys, "argv", ["prose", f"{path}"])

    returned = main()

    assert returned == 1
    assert capsys.readouterr().out == f"{path}:1: 'pictures': use image [Match.Words]\n"


def entries() -> list[list[str]]:
    rows = [row for row in GLOSSARY.splitlines() if row.startswith("| **")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_glossary_has_at_most_forty_entries() -> None:
    assert 0 < len(entries()) <= 40


def test_every_glossary_entry_has_a_source() -> None:
    assert [term for term, meaning, source in entries() if not (meaning and source)] == []
