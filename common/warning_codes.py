"""Warnings: the codes and texts of results that clients should know the limits of."""

from collections.abc import Mapping

FEATURELESS = "featureless"
WARNINGS: Mapping[str, str] = {FEATURELESS: "an image without features to compare; no search finds it"}


def warning_text(code: str) -> str:
    """Return the text of a code; a code of a later version, during an upgrade, is its own text."""
    return WARNINGS.get(code, code)
