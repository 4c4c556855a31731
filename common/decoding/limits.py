"""The limits of a decoder process, which it receives at its start."""

import json
from dataclasses import asdict, dataclass
from typing import Self

OUT_OF_MEMORY = 70
"""Exit status of a decoder process whose memory limit left no memory even for the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLimits:
    """Limits of one image: its pixels (see `common.images.decode.Limits`), its time, and its memory.

    `memory_bytes` is the memory for one image, in addition to that of the idle process. `thumbnail_px` is the longer
    side of the thumbnail in its result, 0 for none.
    """

    pixels: int
    jpeg_pixels: int
    draft_px: int
    timeout_s: float
    memory_bytes: int
    thumbnail_px: int = 0

    def to_json(self) -> str:
        """Return the limits as an argument of the process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the limits in the argument."""
        return cls(**json.loads(text))
