"""The modes of searches and comparisons: by signatures, by local features, or by both."""

from typing import Literal, TypeAlias, get_args

Mode: TypeAlias = Literal["fast", "auto", "thorough"]
"""`fast`: by signatures only. `thorough`: by local features as well. `auto`: as `thorough` where no signature is a sure
match, else as `fast`."""

MODES: tuple[Mode, ...] = get_args(Mode)
