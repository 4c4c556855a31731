"""The parameters of each endpoint: types that parse, validate and document requests."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from api.forms.parameters import (
    Boolean,
    ChosenBatchId,
    CollectionName,
    Cursor,
    Filepath,
    FilepathPrefix,
    Filters,
    InCollection,
    Indexed,
    InExistingCollection,
    InHeader,
    InPath,
    Metadata,
    MetadataObject,
    Number,
    OneOf,
    Parameters,
    RequestKey,
    Upload,
    Url,
    Whole,
    wrong,
)
from api.forms.sources import Sourced, WithImage, choose
from api.sources import Source
from common.config import Settings
from common.modes import MODES, Mode
from common.store.base import Selection

# The kinds of the cursors of filepaths and records, and their positions: sequence numbers.
LIST = "list"
RECORDS = "images"
POSITION = re.compile(r"[0-9]{1,18}")
MAX_LIST_LIMIT = 10_000
# The store reads the signatures and local features of each record, some 20 KiB.
MAX_RECORDS_LIMIT = 500
MAX_LIST_OFFSET = 2**53
MAX_SEARCH_LIMIT = 1000
MAX_SEARCH_OFFSET = 9000
MAX_DELETES = 1000
MAX_ADDS = 100
MAX_IMAGES = 10**12


class Nothing(Parameters):
    """No parameters."""


class Waiting(Parameters):
    """Parameters of a request that can wait for its tasks."""

    wait: Annotated[
        Annotated[float, Number(0, "max_wait_s")] | None,
        Field(description="Seconds to wait until the task has ended. The header `Prefer: wait=N` does the same."),
    ] = None
    prefer: Annotated[
        str | None,
        InHeader("Prefer"),
        Field(description="`wait=N` waits N seconds, at most the maximum of `wait`. Ignored if `wait` is present."),
    ] = None


class Enqueuing(Parameters):
    """Parameters of a request that enqueues tasks: callback and idempotency key."""

    callback_url: Annotated[
        Url | None,
        Field(
            description="Receives a signed webhook, `tasks.ended`, when a task has ended, and `batch.ended` when all "
            "tasks of a batch have. Needs a webhook secret in the service's settings."
        ),
    ] = None
    idempotency_key: Annotated[
        RequestKey | None,
        InHeader("Idempotency-Key"),
        Field(
            description="A unique key of this request, without a comma. The same request with the same key within a "
            "day is answered with the same tasks. A different request with the same key is a 409, for the items or "
            "lines that differ. Each API key has its own keys."
        ),
    ] = None


class InBatch(Enqueuing):
    """Parameters of a request that adds many images, as a batch."""

    batch_id: Annotated[
        ChosenBatchId | None,
        InHeader("X-Batch-ID"),
        Field(
            description="The id of the batch: a new one, or that of a batch of the same API key and collection, which "
            "the request continues. Without it the service chooses an id."
        ),
    ] = None


class Item(WithImage):
    """One image to store."""

    filepath: Annotated[
        Filepath,
        Field(
            description="The name of the image, by which it is found, replaced and deleted. Required with `url` or "
            "`image`."
        ),
    ]
    metadata: Annotated[Metadata | None, Field(description="A JSON object that every match contains.")] = None


class Add(Waiting, Enqueuing, Item, InCollection):
    """An image to store."""


class AddMany(InBatch, Waiting, InCollection):
    """Images to store; parameters with the same index belong to one image."""

    filepaths: Annotated[
        dict[int, Any],
        Indexed(MAX_ADDS, Filepath),
        Field(
            description="The name of the image with this index; required for each image. Indices are 0 to "
            f"{MAX_ADDS - 1}."
        ),
    ] = Field(default_factory=dict)
    urls: Annotated[
        dict[int, Any],
        Indexed(MAX_ADDS, Url),
        Field(description="The URL of the image with this index; required if it has no file."),
    ] = Field(default_factory=dict)
    images: Annotated[
        dict[int, Any],
        Indexed(MAX_ADDS, Upload),
        Field(description="The file of the image with this index; required if it has no URL."),
    ] = Field(default_factory=dict)
    metadata: Annotated[
        dict[int, Any],
        Indexed(MAX_ADDS, Metadata),
        Field(description="The metadata of the image with this index: a JSON object that every match contains."),
    ] = Field(default_factory=dict)

    # Many images by URL are lines of JSON.
    in_json: ClassVar[bool] = False
    # Required parameters.
    first: ClassVar[tuple[str, ...]] = ("filepaths",)
    sources: ClassVar[tuple[str, ...]] = ("urls", "images")
    names: ClassVar[Mapping[str, str]] = {
        "filepath": "filepaths",
        "url": "urls",
        "image": "images",
        "metadata": "metadata",
    }

    def items(self) -> dict[int, dict[str, Any]]:
        """Return the values of each item by index, in order, to be validated as an Item."""
        items: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for field, name in self.names.items():
            for number, value in getattr(self, name).items():
                items[number][field] = value
        return dict(sorted(items.items()))

    def source_of(self, number: int) -> str:
        """Return the parameter that names an item's image."""
        return self.shown("image" if number in self.images else "url", number)

    def shown(self, field: str, number: int) -> str:
        """Return the parameter of an item's field."""
        return f"{self.names[field]}[{number}]"


class Batch(InBatch, InCollection):
    """Parameters of all lines of a batch."""


class Line(Sourced):
    """One image to store, as a line of JSON."""

    sources: ClassVar[tuple[str, ...]] = ("url",)

    url: Annotated[Url, Field(description="The image's URL, http or https.")]
    filepath: Annotated[
        Filepath, Field(description="The name of the image, by which it is found, replaced and deleted.")
    ]
    collection: Annotated[
        CollectionName | None, Field(description="The collection; without it, that of the request.")
    ] = None
    metadata: Annotated[MetadataObject | None, Field(description="A JSON object that every match contains.")] = None


class Delete(InExistingCollection):
    """The image to delete."""

    filepath: Annotated[
        Filepath,
        Field(description="The name of the image. An unknown name is not an error. Required without `filepaths`."),
    ]


class DeleteMany(InExistingCollection):
    """The images to delete."""

    filepaths: Annotated[
        dict[int, Filepath],
        Indexed(MAX_DELETES),
        Field(description="The names of the images. Unknown names are not errors. Required without `filepath`."),
    ]


class Filtered(InExistingCollection):
    """Parameters that select images of a collection by metadata."""

    filter: Annotated[
        Filters,
        Field(
            description="Only images whose metadata contain each of these values, as `filter[key]=value`. Nested keys "
            "are joined by dots, an array matches each of its elements, and numbers and booleans are written as in "
            "JSON."
        ),
    ] = Field(default_factory=dict)

    @property
    def selection(self) -> Selection:
        """The images that the parameters select."""
        return Selection(collection=self.collection, where=self.filter)


class InMode(Parameters):
    """Parameters of a request that compares images."""

    mode: Annotated[
        Annotated[Mode, OneOf(MODES)] | None,
        Field(
            description="`fast`: by signatures only. `thorough`: by local features as well, which find crops, captions "
            "and screenshots. `auto`: as `thorough` where no signature scores 70, with any `min_score`.",
            json_schema_extra={"x-default": "search_mode"},
        ),
    ] = None


class Matching(Filtered, InMode):
    """Which matches a search returns."""

    all_orientations: Annotated[
        Boolean | None,
        Field(
            description="Whether to search for rotated, mirrored and inverted copies too.",
            json_schema_extra={"x-default": "all_orientations"},
        ),
    ] = None
    limit: Annotated[int, Whole(1, MAX_SEARCH_LIMIT), Field(description="Maximum number of matches.")] = 100
    offset: Annotated[
        int, Whole(0, MAX_SEARCH_OFFSET), Field(description="Number of matches to skip, from the best.")
    ] = 0
    min_score: Annotated[
        Annotated[float, Number(0, 100)] | None, Field(description="Minimum score of a match in any orientation.")
    ] = None


class Search(WithImage, Matching):
    """The query of a search: one image, and which matches to return."""

    sources: ClassVar[tuple[str, ...]] = ("filepath", "url", "image")

    filepath: Annotated[
        Filepath | None,
        Field(description="The name of a stored image. One of `filepath`, `url` and `image` is required."),
    ] = None


class SearchBatch(InCollection):
    """Parameters of all lines of a batch of searches."""


class SearchLine(Sourced, Matching):
    """The query of a search, as a line of JSON."""

    sources: ClassVar[tuple[str, ...]] = ("filepath", "url")

    filepath: Annotated[
        Filepath | None,
        Field(description="The name of a stored image. One of `filepath` and `url` is required."),
    ] = None
    url: Annotated[Url | None, Field(description="The image's URL, http or https.")] = None


class Compare(InExistingCollection, InMode):
    """Two images; stored ones are of the same collection."""

    filepath1: Annotated[
        Filepath | None,
        Field(
            description="The name of the first image, if stored. One of `filepath1`, `url1` and `image1` is required."
        ),
    ] = None
    url1: Annotated[Url | None, Field(description="The URL of the first image, http or https.")] = None
    image1: Annotated[Upload | None, Field(description="The file of the first image.")] = None
    filepath2: Annotated[
        Filepath | None,
        Field(
            description="The name of the second image, if stored. One of `filepath2`, `url2` and `image2` is required."
        ),
    ] = None
    url2: Annotated[Url | None, Field(description="The URL of the second image, http or https.")] = None
    image2: Annotated[Upload | None, Field(description="The file of the second image.")] = None

    sources: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("filepath1", "url1", "image1"),
        ("filepath2", "url2", "image2"),
    )
    _pair: tuple[Source, Source] = PrivateAttr()

    @property
    def pair(self) -> tuple[Source, Source]:
        """The images."""
        return self._pair

    @model_validator(mode="after")
    def _choose(self, info: ValidationInfo) -> Self:
        first, second = (choose(self, names, cast("Settings", info.context)) for names in self.sources)
        self._pair = first, second
        return self


class Selected(Filtered):
    """Parameters that select images of a collection by metadata and by the start of their filepaths."""

    filepath_prefix: Annotated[
        FilepathPrefix,
        Field(description="Only images whose filepath begins with exactly this text; no character is a wildcard."),
    ] = ""

    @property
    def selection(self) -> Selection:
        """The images that the parameters select."""
        return Selection(collection=self.collection, where=self.filter, filepath_prefix=self.filepath_prefix)


class DeleteSelected(InExistingCollection):
    """The images to delete: of a folder, or with some metadata."""

    filepath_prefix: Annotated[
        Filepath | None,
        Field(
            description="Only images whose filepath begins with exactly this text, which is not empty; no character is "
            "a wildcard. Requires `filter` or this parameter, and the scope `admin`."
        ),
    ] = None
    filter: Annotated[
        Filters, Field(description="Only images whose metadata contain each of these values, as in `/list`.")
    ] = Field(default_factory=dict)
    dry_run: Annotated[Boolean, Field(description="Whether to return only how many images it would delete.")] = False
    expect: Annotated[
        Annotated[int, Whole(0, MAX_IMAGES)] | None,
        Field(description="The number of images to delete; if another number is selected, the reply is a 409."),
    ] = None

    @property
    def selection(self) -> Selection:
        """The images that the parameters select."""
        return Selection(collection=self.collection, where=self.filter, filepath_prefix=self.filepath_prefix or "")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.selection.is_filtered:
            raise wrong("is required", field="filepath_prefix", code="missing_parameter")
        return self


class Count(Selected):
    """The images to count."""


class Image(InExistingCollection):
    """A stored image."""

    filepath: Annotated[Filepath, Field(description="The name of the image.")]


class PatchImage(InExistingCollection):
    """The change of the metadata of an image."""

    filepath: Annotated[Filepath, Field(description="The name of the image.")]
    metadata: Annotated[
        Metadata,
        Field(
            description="A JSON merge patch (RFC 7396): its values replace those of the same keys, at any depth, and "
            "null removes a key. `null` in place of the object removes all metadata."
        ),
    ]


class Images(Selected):
    """A page of records."""

    cursor: Annotated[
        Annotated[str, Cursor(RECORDS, POSITION)] | None,
        Field(description="The `cursor` of the previous reply; empty at the start."),
    ] = None
    limit: Annotated[int, Whole(1, MAX_RECORDS_LIMIT), Field(description="Maximum number of records.")] = 20


class List(Selected):
    """A page of the collection, by offset or by cursor."""

    cursor: Annotated[
        Annotated[str, Cursor(LIST, POSITION)] | None,
        Field(description="The `cursor` of the previous reply; empty at the start. Excludes an `offset` other than 0."),
    ] = None
    offset: Annotated[
        int,
        Whole(0, MAX_LIST_OFFSET),
        Field(description="Number of filepaths to skip."),
    ] = 0
    limit: Annotated[int, Whole(1, MAX_LIST_LIMIT), Field(description="Maximum number of filepaths.")] = 20

    @model_validator(mode="after")
    def _choose(self) -> Self:
        if self.cursor is not None and self.offset:
            raise wrong("cannot be combined with cursor", field="offset")
        return self


class Task(Parameters):
    """A task by its id."""

    id: Annotated[str, InPath(), Field(description="The id of the task, from the reply to the add.")]


class Collection(Parameters):
    """A collection by its name."""

    name: Annotated[CollectionName, InPath(), Field(description="The name of the collection.")]


class PutCollection(Collection):
    """The properties of a collection."""

    max_images: Annotated[
        Annotated[int, Whole(0, MAX_IMAGES)] | None,
        Field(description="Maximum number of images; an add beyond it is a 403. Without it, the number is unlimited."),
    ] = None
