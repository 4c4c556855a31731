"""The images that commands search by: files, URLs and names of stored images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from match_client import Match, Matches, NotFound, SearchQuery
from match_client.sources import is_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """An image: `image` to be sent, or the name of a stored one.

    `is_guess`: the text may be the path of a file that does not exist.
    """

    text: str
    image: Path | str | None = None
    filepath: str | None = None
    is_guess: bool = False


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
    return Query(text=text, image=path) if path.is_file() else Query(text=text, filepath=text, is_guess=True)


@contextmanager
def naming(*queries: Query) -> Iterator[None]:
    """Let the error of an unknown name say that no file has it either."""
    try:
        yield
    except NotFound as error:
        # `filepath`, or `filepath1` and `filepath2`.
        query = queries[-1 if error.field == "filepath2" else 0]
        if error.code != "unknown_filepath" or not query.is_guess:
            raise
        kind = "a folder" if Path(query.text).is_dir() else "no such file"
        message = f"{query.text}: {kind}, and no image is stored under this name"
        raise NotFound(message, code=error.code, field=error.field, request_id=error.request_id) from error


def search(match: Match, query: Query, options: SearchOptions) -> Matches:
    """Return the matches of a query."""
    with naming(query):
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
