"""The error of a file that exceeds a bound."""

from common.errors import ImageError


def excess(name: str, limit: int, parts: str) -> ImageError:
    """Return the error of a file of the format `name` with more than `limit` parts."""
    return ImageError(f"the {name} file has more than {limit:,} {parts}", code="unsupported_format")
