"""The pages' forms as types: those of the API, whose blank fields are absent."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from api.forms import requests
from api.forms.parameters import InCollection, InExistingCollection, Number, Parameters, Whole, wrong
from api.forms.sources import WithImage
from api.routes import batches, tasks
from common.config import Settings
from common.queue.tasks import State
from common.search import SURE_SCORE

# Between two conditions of a filter.
AND = "&"
PAGE_IMAGES = 60
# The API lists up to this offset.
MAX_PAGE = requests.MAX_LIST_OFFSET // PAGE_IMAGES


class Blank(Parameters):
    """Parameters of which a browser sends all, also those that the reader left blank."""

    @model_validator(mode="before")
    @classmethod
    def _drop_blank(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}


class Filterable(Blank):
    """Parameters with a filter in one line: `album=cats & year=2024`."""

    where: Annotated[str, Field(description="Conditions on metadata.")] = ""

    @model_validator(mode="before")
    @classmethod
    def _parse_filter(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        conditions = [line.partition("=") for line in str(values.get("where", "")).split(AND) if line.strip()]
        if any(not equals or not key.strip() for key, equals, _ in conditions):
            raise wrong(f"must be key=value, several joined by {AND}", field="where")
        return {**values, "filter": {key.strip(): value.strip() for key, _, value in conditions}}


def to_count(params: requests.Filtered) -> requests.Count:
    """Return the request for the number of the images among which `params` search or list."""
    # A search has no prefix.
    names = requests.Count.model_fields.keys() & type(params).model_fields.keys()
    return requests.Count.model_construct(**{name: getattr(params, name) for name in names})


class Search(Filterable, requests.Search):
    """A search by a form."""


class Preview(Blank, WithImage):
    """A query that the browser cannot show."""


class SearchStored(Search):
    """A search by an address: only for a stored image, so that a link on another site starts no download."""

    sources: ClassVar[tuple[str, ...]] = ("filepath",)


class Compare(Blank, requests.Compare):
    """A comparison by a form."""


class Home(Blank, InExistingCollection):
    """The search page of a collection."""


class ComparePage(Blank, InExistingCollection):
    """The form for a comparison, with the names of stored images."""

    filepath1: Annotated[str, Field(description="The name of the first image.")] = ""
    filepath2: Annotated[str, Field(description="The name of the second image.")] = ""


class Browse(Filterable, requests.List):
    """A page of the collection."""

    page: Annotated[int, Whole(1, MAX_PAGE), Field(description="The number of the page.")] = 1


class Duplicates(Browse):
    """A page of the collection, to find duplicates of its images."""

    min_score: Annotated[float, Number(0, 100), Field(description="Minimum score of a duplicate.")] = float(SURE_SCORE)

    def to_search(self, filepath: str, *, limit: int, settings: Settings) -> SearchStored:
        """Return the search for duplicates of one image; by signatures, since an image of a part is not a duplicate."""
        values = {"filepath": filepath, "collection": self.collection, "mode": "fast", "where": self.where}
        numbers = {"limit": str(limit), "min_score": str(self.min_score)}
        return SearchStored.model_validate(values | numbers, context=settings)


class Distinct(requests.DeleteMany):
    """The images of a group that are not duplicates of each other."""


class Failures(Blank, tasks.TaskFilter):
    """A page of the failed tasks."""

    def to_tasks(self, *, limit: int) -> tasks.Tasks:
        """Return the request for their list."""
        return tasks.Tasks.model_construct(state=State.FAILED, limit=limit, **dict(self))


class Pause(Blank, InCollection):
    """The collection of the page that pauses or resumes the queue."""


class RetryAll(Blank, tasks.TaskFilter):
    """The failed tasks to retry."""

    def to_retry(self) -> tasks.Retry:
        """Return the request that retries them."""
        return tasks.Retry.model_construct(state=State.FAILED, limit=tasks.MAX_RETRIED, **dict(self))


def newest_batches(params: Failures, *, limit: int) -> batches.ListBatches:
    """Return the request for the newest batches of the page's collection."""
    return batches.ListBatches.model_construct(collection=params.collection, limit=limit)


def retry_of_batch(batch_id: str) -> tasks.Retry:
    """Return the request that retries the failed tasks of a batch."""
    return tasks.Retry.model_validate({"state": State.FAILED.value, "batch": batch_id, "limit": f"{tasks.MAX_RETRIED}"})
