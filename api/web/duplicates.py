"""The page of duplicates: groups of similar images among the stored ones, a page of the collection at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flask import Response

from api.routes import search_batch
from api.services import Services
from api.sources import UnknownFilepath
from api.web import forms
from api.web.collection import newest, pages_of
from api.web.pages import readable
from api.web.rendering import page
from api.web.search import count
from common.errors import MatchError

# Searched in one batch: a page takes less than two seconds on a store of a million.
PAGE_IMAGES = 30
MAX_GROUP = 50


@dataclass(frozen=True, slots=True)
class Group:
    """An image, and those that are similar to it with their scores; the image itself has 100."""

    scores: dict[str, float]


def duplicates(services: Services, params: forms.Duplicates) -> Response:
    """Show the groups that the images of a page belong to, the newest image first."""
    total = count(services, forms.to_count(params))
    filepaths = newest(services, params, total, size=PAGE_IMAGES)
    groups = list(_groups(services, params, filepaths))
    pages = pages_of(total, size=PAGE_IMAGES)
    return page(
        services, "duplicates.html", params=params, groups=groups, searched=len(filepaths), total=total, pages=pages
    )


def _groups(services: Services, params: forms.Duplicates, filepaths: Sequence[str]) -> Iterator[Group]:
    """Search with all images in one batch, and yield the groups of several images; an image begins one group at most.

    An image that belongs to an earlier group begins none.
    """
    searches = [params.to_search(filepath, limit=MAX_GROUP, settings=services.settings) for filepath in filepaths]
    grouped: set[str] = set()
    items = [search_batch.item_of(services, search) for search in searches]
    for filepath, result in zip(filepaths, search_batch.search_many(services, items), strict=True):
        if isinstance(result, UnknownFilepath):
            # It was deleted meanwhile.
            continue
        if isinstance(result, MatchError):
            raise result
        scores = {filepath: 100.0} | {match.filepath: match.score for match in result.matches}
        if filepath not in grouped and len(scores) > 1:
            yield Group(scores)
        grouped |= scores.keys()


ENDPOINTS = (readable("duplicates", "/web/duplicates", duplicates, forms.Duplicates),)
