"""The page of duplicates: groups of similar images among the stored ones, a page of the collection at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flask import Response

from api.access.keys import Scope
from api.forms.requests import PatchImage
from api.routes import search_batch, stored_images
from api.services import Services
from api.sources import UnknownFilepath
from api.web import forms, verdicts
from api.web.collection import newest, pages_of
from api.web.images import address
from api.web.pages import form, readable
from api.web.rendering import page
from api.web.search import count
from common.errors import MatchError
from common.search import Match
from common.store.base import Record

# Searched in one batch: a page takes less than two seconds on a store of a million.
PAGE_IMAGES = 30
MAX_GROUP = 50


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An image that is similar to the first one of its group."""

    record: Record
    score: float
    orientation: str


@dataclass(frozen=True, slots=True)
class Group:
    """An image, and those that are similar to it, the most similar first."""

    first: Record
    others: Sequence[Duplicate]

    @property
    def records(self) -> list[Record]:
        """The images of the group."""
        return [self.first, *(other.record for other in self.others)]


def duplicates(services: Services, params: forms.Duplicates) -> Response:
    """Show the groups that the images of a page belong to, the newest image first."""
    total = count(services, forms.to_count(params))
    filepaths = newest(services, params, total, size=PAGE_IMAGES)
    groups = list(_groups(services, params, filepaths))
    searched = min(total, params.page * PAGE_IMAGES)
    pages = pages_of(total, size=PAGE_IMAGES)
    return page(services, "duplicates.html", params=params, groups=groups, searched=searched, total=total, pages=pages)


def mark_distinct(services: Services, params: forms.Distinct) -> Response:
    """Keep the verdict that the images of a group are not duplicates, and show the page again."""
    group = list(params.filepaths.values())
    for filepath in group:
        metadata = verdicts.patch(filepath, group)
        change = PatchImage.model_construct(collection=params.collection, filepath=filepath, metadata=metadata)
        stored_images.patch_image(services, change)
    return Response(status=303, headers={"Location": address("/web/duplicates", collection=params.collection)})


def _groups(services: Services, params: forms.Duplicates, filepaths: Sequence[str]) -> Iterator[Group]:
    """Yield the groups of several images; an image begins one group at most.

    An image that belongs to an earlier group begins none. Images with a verdict on each other are not in one group.
    """
    similar = dict(_similar(services, params, filepaths))
    involved = similar.keys() | {match.filepath for matches in similar.values() for match in matches}
    # Only these: a record is 20 KiB.
    records = services.store.records(sorted(involved), collection=params.collection)
    metadata = {filepath: record.metadata for filepath, record in records.items()}
    grouped: set[str] = set()
    for filepath, matches in similar.items():
        if filepath not in records:
            continue
        others = [
            Duplicate(records[match.filepath], match.score, match.orientation)
            for match in matches
            if match.filepath in records and not verdicts.are_distinct(filepath, match.filepath, metadata)
        ]
        if others and filepath not in grouped:
            yield Group(records[filepath], others)
        grouped |= {filepath, *(other.record.filepath for other in others)}


def _similar(
    services: Services, params: forms.Duplicates, filepaths: Sequence[str]
) -> Iterator[tuple[str, list[Match]]]:
    """Search with all images in one batch, and yield each image that has matches besides itself, and these."""
    searches = [params.to_search(filepath, limit=MAX_GROUP, settings=services.settings) for filepath in filepaths]
    items = [search_batch.item_of(services, search) for search in searches]
    for filepath, result in zip(filepaths, search_batch.search_many(services, items), strict=True):
        if isinstance(result, UnknownFilepath):
            # It was deleted meanwhile.
            continue
        if isinstance(result, MatchError):
            raise result
        if matches := [match for match in result.matches if match.filepath != filepath]:
            yield filepath, matches


ENDPOINTS = (
    readable("duplicates", "/web/duplicates", duplicates, forms.Duplicates),
    form("mark_distinct", "/web/duplicates/distinct", mark_distinct, forms.Distinct, scope=Scope.WRITE),
)
