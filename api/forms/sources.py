"""Parameters that name an image: by upload, by URL, or by the filepath of a stored image."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Self, cast

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator
from werkzeug.datastructures import FileStorage

from api.forms.parameters import InCollection, Parameters, Upload, Url, wrong, wrong_together
from api.sources import Source
from common.config import Settings
from common.spooled import Spooled


class Sourced(Parameters):
    """Parameters with one image, in exactly one of the parameters `sources`."""

    sources: ClassVar[tuple[str, ...]]
    _source: Source = PrivateAttr()

    @property
    def source(self) -> Source:
        """The image."""
        return self._source

    @model_validator(mode="after")
    def _choose(self, info: ValidationInfo) -> Self:
        self._source = choose(self, self.sources, cast("Settings", info.context))
        return self


class WithImage(Sourced):
    """Parameters with one image, as `url` or `image`."""

    url: Annotated[
        Url | None,
        Field(description="The image's URL, http or https. Required unless another parameter has the image."),
    ] = None
    image: Annotated[
        Upload | None, Field(description="The image file. Required unless another parameter has the image.")
    ] = None

    sources: ClassVar[tuple[str, ...]] = ("url", "image")


def choose(params: Parameters, names: Sequence[str], settings: Settings) -> Source:
    """Return the image of the only parameter among `names` that is present; raises an error for none or two."""
    present = [name for name in names if getattr(params, name) is not None]
    if not present:
        raise wrong_together(names[::-1], "or", "is required", code="missing_parameter")
    if len(present) > 1:
        raise wrong_together(present[:2], "and", "are mutually exclusive")
    [field] = present
    source = _source(field, getattr(params, field), settings.max_image_bytes)
    return replace(source, collection=params.collection) if isinstance(params, InCollection) else source


def _source(field: str, value: str | FileStorage, max_image_bytes: int) -> Source:
    if isinstance(value, FileStorage):
        return Source(field, file=_spooled(value, field, max_image_bytes))
    if field.startswith("filepath"):
        return Source(field, filepath=value)
    if not value.strip():
        raise wrong("is empty", field=field)
    return Source(field, url=value.strip())


def _spooled(upload: FileStorage, field: str, max_bytes: int) -> Spooled:
    """Return the upload without reading it: its bytes stay on disk until there is memory for them."""
    spooled = Spooled.of(upload.stream)
    if not spooled.size:
        raise wrong("is an empty file", field=field, code="empty_image")
    if spooled.size > max_bytes:
        problem = f"has {spooled.size:,} bytes; the limit is {max_bytes:,} (MATCH_MAX_IMAGE_BYTES)"
        raise wrong(problem, field=field, code="too_large")
    return spooled
