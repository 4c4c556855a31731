"""The page of duplicates: groups of similar images among the stored ones, a page of the collection at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flask import Response

from api.routes import search as search_views
from api.services import Services
from api.sources import UnknownFilepath
from api.web import forms
from api.web.collection import newest, pages_of
from api.web.pages import readable
from api.web.rendering import page
from api.web.search import count

# Each image is a search of about ten milliseconds: a page takes less than a second on a store of a million.
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
    """Search with each image that belongs to no earlier group, and yield the groups of several images."""
    grouped: set[str] = set()
    for filepath in filepaths:
        if filepath in grouped:
            continue
        search = params.to_search(filepath, limit=MAX_GROUP, settings=services.settings)
        try:
            matches = search_views.search(services, search).get_json()["result"]
        except UnknownFilepath:
            # It was deleted meanwhile.
            continue
        scores = {filepath: 100.0} | {match["filepath"]: match["score"] for match in matches}
        grouped |= scores.keys()
        if len(scores) > 1:
            yield Group(scores)


ENDPOINTS = (readable("duplicates", "/web/duplicates", duplicates, forms.Duplicates),)
