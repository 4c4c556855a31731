"""Groups of similar stored images: a search by each, and the groups that their matches connect."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Self

from match_cli.queries import SearchOptions, stored_query
from match_cli.state_files import opening
from match_client import Match, RequestRejected

# Names in a page: after an interruption, at most this number of searches is repeated.
PAGE = 500
TABLES = """
CREATE TABLE IF NOT EXISTS pairs (first TEXT, second TEXT, score REAL, PRIMARY KEY (first, second)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (
    id INTEGER PRIMARY KEY CHECK (id = 1), cursor TEXT, searched INTEGER, ended INTEGER
);
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two similar images, in the order of their names."""

    first: str
    second: str
    score: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Similar images: `names` in order, `score` is the lowest of the pairs that connect them."""

    names: Sequence[str]
    score: float


class Progress:
    """The pairs so far, in a file; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with opening(path) as self._db:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.executescript(TABLES)
            self._db.execute("INSERT OR IGNORE INTO progress VALUES (1, NULL, 0, 0)")

    @classmethod
    def of(cls, folder: Path, url: str, options: SearchOptions) -> Self:
        """Return the progress for a service and the parameters of its searches."""
        digest = hashlib.sha256(f"{url.rstrip('/')}\n{options}".encode()).hexdigest()
        return cls(folder / f"duplicates-{digest[:16]}.db")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @property
    def cursor(self) -> str | None:
        """The cursor of the page after the last one that was searched; None at the start."""
        cursor: str | None = self._db.execute("SELECT cursor FROM progress").fetchone()[0]
        return cursor

    @property
    def searched(self) -> int:
        """The number of images that were searched by."""
        return int(self._db.execute("SELECT searched FROM progress").fetchone()[0])

    @property
    def has_ended(self) -> bool:
        """Whether all pages were searched."""
        return bool(self._db.execute("SELECT ended FROM progress").fetchone()[0])

    def add(self, pairs: Sequence[Pair], *, cursor: str | None, searched: int) -> None:
        """Write the pairs of a page."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT INTO pairs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET score = max(score, excluded.score)",
            [(pair.first, pair.second, pair.score) for pair in pairs],
        )
        self._db.execute(
            "UPDATE progress SET cursor = ?, searched = searched + ?, ended = ?", (cursor, searched, cursor is None)
        )
        self._db.execute("COMMIT")

    def pairs(self) -> Iterator[Pair]:
        """Yield all pairs."""
        for row in self._db.execute("SELECT first, second, score FROM pairs ORDER BY first, second"):
            yield Pair(*row)

    def remove(self) -> None:
        """Remove the file: the next run starts again."""
        self._db.close()
        self._path.unlink(missing_ok=True)


def find_pairs(
    match: Match, progress: Progress, options: SearchOptions, *, jobs: int, report: Callable[[int], None], stop: Event
) -> None:
    """Search by each stored image from where the progress ended; `report` receives the number of each page.

    `stop` is set on an error, so that no thread repeats its request.
    """
    if progress.has_ended:
        return
    with ThreadPoolExecutor(jobs) as threads, _setting(stop):
        for page in match.pages(progress.cursor, filter=options.filters, collection=options.collection, page=PAGE):
            parts = [page.names[start::jobs] for start in range(min(jobs, len(page.names)))]
            pairs = [pair for part in threads.map(partial(neighbours, match, options=options), parts) for pair in part]
            progress.add(pairs, cursor=page.cursor, searched=len(page.names))
            report(len(page.names))


@contextmanager
def _setting(stop: Event) -> Iterator[None]:
    """Set the event on an error."""
    try:
        yield
    except BaseException:
        stop.set()
        raise


def neighbours(match: Match, names: Sequence[str], *, options: SearchOptions) -> list[Pair]:
    """Return the pairs of the images with these names and their matches, by one batch of searches."""
    pairs: list[Pair] = []
    for outcome in match.search_many(stored_query(name, options) for name in names):
        # An image that was deleted after it was listed has no pairs.
        if outcome.status == "fail" and outcome.code != "unknown_filepath":
            raise RequestRejected("; ".join(outcome.errors), code=outcome.code or "internal_error", field=outcome.field)
        name = outcome.filepath or ""
        pairs += [_pair(name, other.filepath, other.score) for other in outcome.matches if other.filepath != name]
    return pairs


def _pair(name: str, other: str, score: float) -> Pair:
    return Pair(min(name, other), max(name, other), score)


def groups(pairs: Iterator[Pair]) -> list[Duplicates]:
    """Return the groups that pairs connect, the largest first."""
    parents: dict[str, str] = {}
    scores: dict[str, float] = {}

    def root(name: str) -> str:
        while (parent := parents.setdefault(name, name)) != name:
            # Shortens the way for the next call.
            parents[name] = parents[parent]
            name = parent
        return name

    for pair in pairs:
        first, second = sorted((root(pair.first), root(pair.second)))
        parents[second] = first
        scores[first] = min(pair.score, scores.get(first, 100.0), scores.get(second, 100.0))
    members: defaultdict[str, list[str]] = defaultdict(list)
    for name in parents:
        members[root(name)].append(name)
    connected = [Duplicates(sorted(names), scores[first]) for first, names in members.items()]
    return sorted(connected, key=lambda group: (-len(group.names), -group.score, group.names))
