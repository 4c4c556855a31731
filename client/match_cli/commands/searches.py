"""`match search`, `match compare` and `match duplicates`."""

import webbrowser
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event
from typing import Annotated

import typer

from match_cli import options, output, pages
from match_cli.context import client_of, long_client_of, pause_until
from match_cli.discovery import absolute
from match_cli.duplicates import Duplicates, Progress, find_pairs, groups
from match_cli.exits import UsageProblem, exit_of
from match_cli.folders import state_folder
from match_cli.progress import SearchProgress
from match_cli.queries import Query, SearchOptions, naming, query_of, search
from match_client import InvalidSource, Match, MatchError, Matches, NotFound, RequestRejected
from match_client.results import DEFAULT_COLLECTION
from match_client.sources import is_url

# As on the web page: the score from which the mode `auto` is sure. At 55, a large collection has unrelated pairs.
DUPLICATE_SCORE = 70.0
QUERY_HELP = "A file, a URL or the name of a stored image."

Limit = Annotated[int | None, typer.Option(min=1, max=1000, help="Maximum number of matches.")]
MinScore = Annotated[float | None, typer.Option(min=0, max=100, help="Minimum score.")]
Mode = Annotated[str | None, typer.Option(help="Search mode of the service.")]
Stored = Annotated[bool, typer.Option("--stored", help="The arguments are names of stored images.")]


def search_(
    context: typer.Context,
    queries: Annotated[list[str], typer.Argument(metavar="FILE|URL|FILEPATH", help=QUERY_HELP)],
    *,
    limit: Limit = None,
    min_score: MinScore = None,
    filters: options.Filters = None,
    mode: Mode = None,
    collection: options.Collection = None,
    is_stored: Stored = False,
    is_open: Annotated[bool, typer.Option("--open", help="Show the matches in the browser.")] = False,
    is_json: options.Json = False,
) -> None:
    """Find stored images that are similar to an image, best match first."""
    parameters = SearchOptions(
        limit=limit,
        min_score=min_score,
        filters=options.parse_filters(filters),
        mode=mode,
        collection=collection,
    )
    sections = []
    errors: list[MatchError] = []
    with client_of(context) as match:
        for text in queries:
            query = query_of(text, is_stored=is_stored)
            try:
                matches = search(match, query, parameters)
            except (RequestRejected, InvalidSource) as error:
                # The others are searched for.
                output.error(error)
                errors.append(error)
                continue
            _print_matches(query, matches, has_heading=len(queries) > 1, is_json=is_json)
            if not matches and match.count(collection=collection) == 0:
                output.message(f"the collection {collection or DEFAULT_COLLECTION} has no images")
            if is_open:
                sections.append(_section(match, query, matches, collection))
    if is_open and sections:
        _open(pages.page("Matches", sections))
    if errors:
        raise typer.Exit(exit_of(errors[-1]))


def compare(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="FILE|URL|FILEPATH", help=QUERY_HELP)],
    second: Annotated[str, typer.Argument(metavar="FILE|URL|FILEPATH", help=QUERY_HELP)],
    *,
    mode: Mode = None,
    collection: options.Collection = None,
    is_stored: Stored = False,
    is_json: options.Json = False,
) -> None:
    """Print how similar two images are, from 0 to 100."""
    one, other = (query_of(text, is_stored=is_stored) for text in (first, second))
    with client_of(context) as match, naming(one, other):
        comparison = match.compare(
            one.image,
            other.image,
            filepath1=one.filepath,
            filepath2=other.filepath,
            mode=mode,
            collection=collection,
        )
    if is_json:
        output.document(output.plain(comparison))
    else:
        output.line(f"{comparison.score:.1f}")
    if comparison.is_featureless:
        output.message("an image without features: the score is 100 for equal pixels, else 0")


def duplicates(
    context: typer.Context,
    *,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the images.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=100, help="Minimum score of a duplicate.")] = DUPLICATE_SCORE,
    limit: Limit = None,
    filters: options.Filters = None,
    mode: Annotated[str | None, typer.Option(help="Search mode; with fast, crops are not grouped.")] = None,
    collection: options.Collection = None,
    jobs: options.Jobs = 1,
    is_json: options.Json = False,
) -> None:
    """Find groups of similar stored images, the largest first.

    It searches by each stored image, in batches. An interrupted run continues where it ended.
    """
    parameters = SearchOptions(
        limit=limit, min_score=min_score, filters=options.parse_filters(filters), mode=mode, collection=collection
    )
    stop = Event()
    with (
        long_client_of(context, pause=pause_until(stop)) as match,
        Progress.of(state_folder(), match.url, parameters) as progress,
    ):
        total = match.count(filter=parameters.filters, collection=collection)
        with SearchProgress(total, progress.searched).shown() as advance:
            find_pairs(match, progress, parameters, jobs=jobs, report=advance, stop=stop)
        result = groups(progress.pairs())
        for group in result:
            if is_json:
                output.document({"score": group.score, "filepaths": group.names})
            elif html is None:
                output.line(f"{len(group.names)} images, score {group.score:.1f} or more")
                for name in group.names:
                    output.line(f"  {name}")
        if html is not None:
            number = sum(len(group.names) for group in result)
            title = f"Duplicates: {len(result)} groups, {number} images"
            _write(html, pages.page(title, _groups(match, result, collection)))
        progress.remove()
    where = "" if html is None else f", in {html}"
    output.message(f"groups of similar images: {len(result)}{where}")


def _print_matches(query: Query, matches: Matches, *, has_heading: bool, is_json: bool) -> None:
    if is_json:
        output.document({"query": query.text, **output.plain(matches)})
        return
    if has_heading:
        output.line(query.text)
    if matches:
        columns = ["score", "filepath", "orientation"]
        # Columns that most searches do not need.
        columns += ["matched_by"] if any(match.matched_by == "local_features" for match in matches) else []
        columns += ["metadata"] if any(match.metadata for match in matches) else []
        output.table(columns, [[getattr(match, column) for column in columns] for match in matches])
    elif matches.is_featureless:
        output.message("the image has no features: no search finds it")
    else:
        output.message("no matches")


def _section(match: Match, query: Query, matches: Matches, collection: str | None) -> pages.Section:
    if query.image is None:
        first = _shown(match, query.text, "the query", collection)
    else:
        first = pages.Shown(query.text if is_url(query.text) else absolute(query.text), "the query")
    others = [_shown(match, one.filepath, f"score {one.score:.1f}", collection) for one in matches]
    return pages.Section(query.text, [first, *others])


def _groups(match: Match, result: Iterable[Duplicates], collection: str | None) -> Iterator[pages.Section]:
    for group in result:
        shown = [_shown(match, name, "", collection) for name in group.names]
        yield pages.Section(f"{len(group.names)} images, score {group.score:.1f} or more", shown)


def _shown(match: Match, name: str, caption: str, collection: str | None) -> pages.Shown:
    """Return a stored image with its size, and its thumbnail or URL unless a file with its name exists here."""
    try:
        image = match.image(name, collection=collection)
    except NotFound:
        return pages.Shown(name, caption)
    # The size of an imported image is not known.
    size = f"{image.width} × {image.height}" if image.width and image.height else ""  # noqa: RUF001 - the sign of sizes
    captions = ", ".join(text for text in (caption, size) if text)
    thumbnail = None if Path(name).is_file() else match.thumbnail(name, collection=collection)
    return pages.Shown(name, captions, thumbnail, image.url)


def _write(path: Path, parts: Iterable[str]) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(parts)
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from error


def _open(parts: Iterable[str]) -> None:
    """Show a page in the browser; the file stays, since the browser may read it later."""
    with NamedTemporaryFile("w", encoding="utf-8", suffix=".html", prefix="match-", delete=False) as file:
        file.writelines(parts)
    if not webbrowser.open(Path(file.name).as_uri()):
        output.message(f"no browser: the page is {file.name}")
