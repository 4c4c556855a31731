"""What each endpoint takes: one type a request, by which it is read, checked and documented."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from api.forms.parameters import (
    Boolean,
    Cursor,
    Filepath,
    Filters,
    Indexed,
    InHeader,
    InPath,
    Metadata,
    MetadataObject,
    Number,
    Parameters,
    RequestKey,
    Upload,
    Url,
    Whole,
    wrong,
)
from api.forms.sources import Pictured, Sourced, choose
from api.sources import Source
from common.config import Settings

# The kind of its cursors, and their places: those in the order of requests.
LIST = "list"
PLACE = re.compile(r"[0-9]{1,18}")
LIST_LIMIT = 10_000
LIST_OFFSET_LIMIT = 2**53
SEARCH_LIMIT = 1000
SEARCH_OFFSET_LIMIT = 9000
DELETE_MOST = 1000
ADD_MOST = 100


class Nothing(Parameters):
    """No parameters."""


class Waiting(Parameters):
    """Parameters of what may be waited for."""

    wait: Annotated[
        Annotated[float, Number(0, "max_wait_s")] | None,
        Field(description="Seconds to wait for the end; the header `Prefer: wait=N` asks for the same."),
    ] = None
    prefer: Annotated[
        str | None,
        InHeader("Prefer"),
        Field(description="`wait=N` asks to wait so many seconds, as far as they are granted, where `wait` is absent."),
    ] = None


class Ordered(Parameters):
    """Parameters of what its sender wants to hear of again, or may send again."""

    callback_url: Annotated[
        Url | None,
        Field(
            description="Is told of the end of each task by a signed webhook, `tasks.ended`; needs a secret in the "
            "service's settings."
        ),
    ] = None
    idempotency_key: Annotated[
        RequestKey | None,
        InHeader("Idempotency-Key"),
        Field(
            description="Your own name for this request, without a comma: sent again within a day, it answers with the "
            "same tasks. Each API key has names of its own. The same name for something else, at the same place of a "
            "request in whichever form, is a 409; among many that item's or line's."
        ),
    ] = None


class Item(Pictured):
    """One picture to be stored."""

    filepath: Annotated[
        Filepath,
        Field(
            description="The picture's name: what it is found, replaced and deleted by. Required beside `url` and "
            "`image`."
        ),
    ]
    metadata: Annotated[Metadata | None, Field(description="Comes back with every match.")] = None


class Add(Waiting, Ordered, Item):
    """A picture to be stored."""


class AddMany(Ordered, Waiting):
    """Pictures to be stored; what has the same number belongs together."""

    filepaths: Annotated[
        dict[int, Any],
        Indexed(ADD_MOST, Filepath),
        Field(
            description="The name of the picture with this number; required for each. The numbers are those from 0 to "
            f"{ADD_MOST - 1}."
        ),
    ] = Field(default_factory=dict)
    urls: Annotated[
        dict[int, Any],
        Indexed(ADD_MOST, Url),
        Field(description="The address of the picture with this number; required where it has no file."),
    ] = Field(default_factory=dict)
    images: Annotated[
        dict[int, Any],
        Indexed(ADD_MOST, Upload),
        Field(description="The file of the picture with this number; required where it has no address."),
    ] = Field(default_factory=dict)
    metadata: Annotated[
        dict[int, Any],
        Indexed(ADD_MOST, Metadata),
        Field(description="The metadata of the picture with this number; they come back with every match."),
    ] = Field(default_factory=dict)

    # Which of the first item there have to be.
    first: ClassVar[tuple[str, ...]] = ("filepaths[0]",)
    sources: ClassVar[tuple[str, ...]] = ("urls[0]", "images[0]")
    names: ClassVar[Mapping[str, str]] = {
        "filepath": "filepaths",
        "url": "urls",
        "image": "images",
        "metadata": "metadata",
    }

    def items(self) -> dict[int, dict[str, Any]]:
        """Return what is there of each item by number, in order, still to be checked as an Item."""
        found: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for field, name in self.names.items():
            for number, value in getattr(self, name).items():
                found[number][field] = value
        return dict(sorted(found.items()))

    def source_of(self, number: int) -> str:
        """Return the parameter that names an item's image."""
        return self.shown("image" if number in self.images else "url", number)

    def shown(self, field: str, number: int) -> str:
        """Return the parameter by which an item's field came."""
        return f"{self.names[field]}[{number}]"


class Batch(Ordered):
    """What holds for all lines of a batch."""


class Line(Sourced):
    """One picture to be stored, as a line of JSON."""

    sources: ClassVar[tuple[str, ...]] = ("url",)

    url: Annotated[Url, Field(description="The picture's address, http or https.")]
    filepath: Annotated[Filepath, Field(description="The picture's name: what it is found, replaced and deleted by.")]
    metadata: Annotated[MetadataObject | None, Field(description="Comes back with every match.")] = None


class Delete(Parameters):
    """The picture to be deleted."""

    filepath: Annotated[
        Filepath, Field(description="Exactly this one; it need not be there. Required where no `filepaths` are given.")
    ]


class DeleteMany(Parameters):
    """The pictures to be deleted."""

    filepaths: Annotated[
        dict[int, Filepath],
        Indexed(DELETE_MOST),
        Field(description="Exactly these; they need not be there. Required where no `filepath` is given."),
    ]


class Filtered(Parameters):
    """Parameters that keep to pictures with certain metadata."""

    filter: Annotated[
        Filters,
        Field(
            description="Keep to pictures whose metadata hold each of these values, given as `filter[key]=value`. "
            "Keys inside keys are joined by dots; an array holds each of its elements; numbers and booleans are "
            "written as in JSON."
        ),
    ] = Field(default_factory=dict)


class Search(Pictured, Filtered):
    """A picture whose like is sought."""

    sources: ClassVar[tuple[str, ...]] = ("filepath", "url", "image")

    filepath: Annotated[
        Filepath | None,
        Field(description="A stored picture; nothing is downloaded. One of `filepath`, `url` and `image` is required."),
    ] = None
    all_orientations: Annotated[
        Boolean | None,
        Field(
            description="Whether turned, mirrored and inverted copies are sought as well.",
            json_schema_extra={"x-default": "all_orientations"},
        ),
    ] = None
    limit: Annotated[int, Whole(1, SEARCH_LIMIT), Field(description="Most matches in the reply.")] = 100
    offset: Annotated[
        int, Whole(0, SEARCH_OFFSET_LIMIT), Field(description="Matches to leave out, the best first.")
    ] = 0
    min_score: Annotated[
        Annotated[float, Number(0, 100)] | None, Field(description="Least score of a match, in every orientation.")
    ] = None


class Compare(Parameters):
    """Two pictures."""

    filepath1: Annotated[
        Filepath | None,
        Field(description="The first picture is a stored one. One of `filepath1`, `url1` and `image1` is required."),
    ] = None
    url1: Annotated[Url | None, Field(description="The first picture's address, http or https.")] = None
    image1: Annotated[Upload | None, Field(description="The first picture's file.")] = None
    filepath2: Annotated[
        Filepath | None,
        Field(description="The second picture is a stored one. One of `filepath2`, `url2` and `image2` is required."),
    ] = None
    url2: Annotated[Url | None, Field(description="The second picture's address, http or https.")] = None
    image2: Annotated[Upload | None, Field(description="The second picture's file.")] = None

    sources: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("filepath1", "url1", "image1"),
        ("filepath2", "url2", "image2"),
    )
    _pair: tuple[Source, Source] = PrivateAttr()

    @property
    def pair(self) -> tuple[Source, Source]:
        """The pictures."""
        return self._pair

    @model_validator(mode="after")
    def _choose(self, info: ValidationInfo) -> Self:
        first, second = (choose(self, names, cast("Settings", info.context)) for names in self.sources)
        self._pair = first, second
        return self


class Count(Filtered):
    """What is counted."""


class Image(Parameters):
    """A stored picture."""

    filepath: Annotated[Filepath, Field(description="The picture's name, exactly as it was added.")]


class List(Filtered):
    """A part of the collection, by offset or by cursor."""

    cursor: Annotated[
        Annotated[str, Cursor(LIST, PLACE)] | None,
        Field(description="The `cursor` of the reply before; empty at the start. No `offset` beside it, save 0."),
    ] = None
    offset: Annotated[
        int,
        Whole(0, LIST_OFFSET_LIMIT),
        Field(description="Filepaths to leave out at the start."),
    ] = 0
    limit: Annotated[int, Whole(1, LIST_LIMIT), Field(description="Most filepaths in the reply.")] = 20

    @model_validator(mode="after")
    def _choose(self) -> Self:
        if self.cursor is not None and self.offset:
            raise wrong("cannot be given together with cursor", field="offset")
        return self


class Task(Parameters):
    """A task by its id."""

    id: Annotated[str, InPath(), Field(description="As in the reply to the add.")]
