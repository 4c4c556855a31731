"""The files of the pages: two style sheets, one module and an icon."""

from pathlib import Path

from api.static_files import static_file

FOLDER = Path(__file__).parent / "static"
FILES = {
    "match.js": "text/javascript",
    "match.css": "text/css",
    "simple/simple.css": "text/css",
    "icon.svg": "image/svg+xml",
}
ENDPOINTS = tuple(
    static_file(FOLDER / name, path=f"/web/static/{name}", mimetype=mimetype) for name, mimetype in FILES.items()
)
