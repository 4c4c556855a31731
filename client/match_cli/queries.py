"""The images that commands search by: files, URLs and names of stored images."""

from dataclasses import dataclass
from pathlib import Path

from match_client import Match, Matches, SearchQuery
from match_client.sources import is_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """An image: `image` to be sent, or the name of a stored one."""

    text: str
    image: Path | str | None = None
    filepath: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The parameters of searches; None is the service's default."""

    limit: int | None = None
    min_score: float | None = None
    filters: dict[str, object] | None = None
    mode: str | None = None
    collection: str | None = None


def query_of(text: str, *, is_stored: bool = False) -> Query:
    """Return the query of an argument: a URL, an existing file, or else the name of a stored image."""
    if is_stored:
        return Query(text=text, filepath=text)
    if is_url(text):
        return Query(text=text, image=text)
    path = Path(text).expanduser()
    return Query(text=text, image=path) if path.is_file() else Query(text=text, filepath=text)


def search(match: Match, query: Query, options: SearchOptions) -> Matches:
    """Return the matches of a query."""
    return match.search(
        query.image,
        filepath=query.filepath,
        limit=options.limit,
        min_score=options.min_score,
        filter=options.filters,
        mode=options.mode,
        collection=options.collection,
    )


def stored_query(name: str, options: SearchOptions) -> SearchQuery:
    """Return the query by a stored image, for a batch."""
    return SearchQuery(
        filepath=name,
        limit=options.limit,
        min_score=options.min_score,
        filter=options.filters,
        mode=options.mode,
        collection=options.collection,
    )
