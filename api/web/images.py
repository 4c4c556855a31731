"""The addresses of pages and of stored images: at the user's own host, or of thumbnails."""

from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from common.collection_names import DEFAULT_COLLECTION

FILEPATH_PLACEHOLDER = "{filepath}"


def address(path: str, *, collection: str, **query: object) -> str:
    """Return the address of a page or an image of a collection; values that are empty or None are left out.

    >>> address("/web/image", collection="default", filepath="cats/a b.jpg", page=None)
    '/web/image?filepath=cats%2Fa+b.jpg'
    >>> address("/", collection="shop")
    '/?collection=shop'
    """
    values = {"collection": "" if collection == DEFAULT_COLLECTION else collection, **query}
    present = {name: value for name, value in values.items() if value not in {"", None}}
    return f"{path}?{urlencode(present)}" if present else path


@dataclass(frozen=True, slots=True)
class Images:
    """The addresses by filepath; `template` is the setting MATCH_IMAGE_URL_TEMPLATE.

    >>> Images("https://images.example.org/{filepath}", has_thumbnails=False).original("cats/a b.jpg")
    'https://images.example.org/cats/a%20b.jpg'
    """

    template: str | None
    has_thumbnails: bool
    collection: str = DEFAULT_COLLECTION

    def thumbnail(self, filepath: str) -> str | None:
        """Return the address of the thumbnail, None where none are kept."""
        return (
            address("/images/thumbnail", collection=self.collection, filepath=filepath) if self.has_thumbnails else None
        )

    def original(self, filepath: str) -> str | None:
        """Return the URL of the image itself, None if its host is not known."""
        return None if self.template is None else self.template.replace(FILEPATH_PLACEHOLDER, quote(filepath))

    @property
    def origin(self) -> str:
        """The origin of the images for the policy, empty where it is the page's own or not known."""
        if self.template is None:
            return ""
        parts = urlsplit(self.template)
        return f"{parts.scheme}://{parts.netloc}"
