"""The journal compared with the service: images that others deleted are sent again."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from match_cli.discovery import Discovered, Source
from match_cli.journal import Journal, common_prefix
from match_client import AccessDenied, Match, NotFound

# A page of 1,000 names takes about as long as ten requests for an image.
LISTED_PER_LOOKUP = 100


def survey(images: Iterable[Discovered]) -> tuple[int, str]:
    """Return the number of images, and the text that all their names begin with."""
    number, least, greatest = 0, None, None
    for image in images:
        number += 1
        if isinstance(image, Source):
            least = image.filepath if least is None else min(least, image.filepath)
            greatest = image.filepath if greatest is None else max(greatest, image.filepath)
    return number, common_prefix(least or "", greatest or "")


def compare(match: Match, journal: Journal, prefix: str, *, collection: str | None, jobs: int) -> None:
    """Let the journal forget the images with a prefix that the service does not have, in bounded memory.

    A key that may not read leaves the journal unchanged.
    """
    stored = journal.count_stored(prefix)
    if not stored:
        return
    try:
        listed = match.count(filepath_prefix=prefix or None, collection=collection)
        if listed > LISTED_PER_LOOKUP * stored:
            _look_up(match, journal, prefix, collection=collection, jobs=jobs)
        else:
            for page in match.pages(filepath_prefix=prefix or None, collection=collection):
                journal.mark_listed(page.names)
    except AccessDenied:
        return
    except NotFound:
        # The collection was deleted.
        pass
    journal.end_comparison(prefix)


def _look_up(match: Match, journal: Journal, prefix: str, *, collection: str | None, jobs: int) -> None:
    """Ask for each image of the journal, where the service has far more images."""
    with ThreadPoolExecutor(jobs) as threads:
        for names in journal.stored_names(prefix):
            known = threads.map(partial(_is_stored, match, collection=collection), names)
            journal.mark_listed([name for name, is_stored in zip(names, known, strict=True) if is_stored])


def _is_stored(match: Match, name: str, *, collection: str | None) -> bool:
    try:
        match.image(name, collection=collection)
    except NotFound:
        return False
    return True
