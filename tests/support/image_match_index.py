"""An index of image-match on loopback, for imports; and the documents that image-match itself makes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from image_match.goldberg import ImageSignature
from image_match.signature_database_base import make_record
from numpy.typing import NDArray

from support.http_servers import Handler, LocalServer, serving

FIRST = datetime(2017, 5, 1, 12)  # noqa: DTZ001 - image-match writes local times
WORD_LENGTH, WORDS = 16, 63


def document(path: str, pixels: NDArray[np.uint8], *, number: int = 0, **fields: Any) -> dict[str, Any]:
    """Return the document that image-match writes for an image; its time is `number` seconds after FIRST."""
    record: dict[str, Any] = make_record(path, ImageSignature(), WORD_LENGTH, WORDS, img=pixels)
    return record | {"timestamp": (FIRST + timedelta(seconds=number)).isoformat()} | fields


class ImageMatchIndex:
    """A fake index: searches are answered from `documents`, oldest first, in pages of `page`.

    After `calls_left` requests it fails.
    """

    def __init__(self, documents: Sequence[Mapping[str, Any]], *, page: int = 3) -> None:
        self.documents = list(documents)
        self.page = page
        self.calls_left = 1_000
        self.open_scrolls = 0
        self.url = ""
        self._hits: list[dict[str, Any]] = []

    def answer(self, method: str, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of a reply."""
        self.calls_left -= 1
        if self.calls_left < 0:
            return 503, {"error": {"reason": "the cluster is down"}}
        if path.endswith("/_count"):
            return 200, {"count": len(self.documents)}
        if method == "DELETE":
            self.open_scrolls -= 1
            return 200, {}
        if path.endswith("/_search"):
            self.open_scrolls += 1
            self._hits = self._matching(body)
        hits, self._hits = self._hits[: self.page], self._hits[self.page :]
        return 200, {"_scroll_id": "scroll", "hits": {"hits": hits}}

    def _matching(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        clauses = body["query"]["bool"]
        [since] = [one["range"]["timestamp"]["gte"] for one in clauses.get("filter", []) if "range" in one] or [None]
        has_time = "filter" in clauses
        hits: list[dict[str, Any]] = [
            {"_id": f"{number}", "_source": {name: one[name] for name in body["_source"] if name in one}}
            | ({"sort": [_milliseconds(one["timestamp"])]} if has_time else {"sort": [number]})
            for number, one in enumerate(self.documents)
            if ("timestamp" in one) == has_time
        ]
        return sorted((hit for hit in hits if since is None or hit["sort"][0] >= since), key=lambda hit: hit["sort"])


def _milliseconds(timestamp: str) -> int:
    return int(datetime.fromisoformat(timestamp + "+00:00").timestamp() * 1000)


@contextmanager
def serving_index(index: ImageMatchIndex) -> Iterator[ImageMatchIndex]:
    """Serve the index until the `with` block ends."""

    class Requests(Handler):
        """Passes each request on to the index."""

        do_DELETE = Handler.do_GET  # noqa: N815 - the names are http.server's

        def answer(self) -> None:
            """Answer with JSON."""
            body = self.body()
            status, reply = index.answer(self.command, urlsplit(self.path).path, json.loads(body or b"{}"))
            self.reply(status, json.dumps(reply).encode(), {"Content-Type": "application/json"})

    with serving(LocalServer(Requests)) as server:
        index.url = server.url
        yield index
