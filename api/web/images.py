"""The addresses of stored images: at the user's own host, or of thumbnails."""

from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

PLACE_OF_FILEPATH = "{filepath}"


@dataclass(frozen=True, slots=True)
class Images:
    """The addresses by filepath; `template` is the setting MATCH_IMAGE_URL_TEMPLATE.

    >>> Images("https://images.example.org/{filepath}", has_thumbnails=False).original("cats/a b.jpg")
    'https://images.example.org/cats/a%20b.jpg'
    """

    template: str | None
    has_thumbnails: bool

    def thumbnail(self, filepath: str) -> str | None:
        """Return the address of the thumbnail, None where none are kept."""
        return f"/images/thumbnail?{urlencode({'filepath': filepath})}" if self.has_thumbnails else None

    def original(self, filepath: str) -> str | None:
        """Return the URL of the image itself, None if its host is not known."""
        return None if self.template is None else self.template.replace(PLACE_OF_FILEPATH, quote(filepath))

    @property
    def origin(self) -> str:
        """The origin of the images for the policy, empty where it is the page's own or not known."""
        if self.template is None:
            return ""
        parts = urlsplit(self.template)
        return f"{parts.scheme}://{parts.netloc}"
