"""The import of documents of image-match from real nodes: each original is found at 100."""

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from common.images.signature import distances, score, sign
from common.store.import_elasticsearch import Importing, ImportProgress, Index
from common.store.sqlite import SqliteStore
from support.image_match_index import document

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "images"
SERVERS = [
    pytest.param("elasticsearch_url", marks=pytest.mark.elasticsearch),
    pytest.param("opensearch_url", marks=pytest.mark.opensearch),
]


@pytest.fixture(scope="module")
def originals() -> dict[str, Any]:
    """The pixels of the example images, by a name that a URL has."""
    return {
        f"http://192.0.2.1/{path.name}": np.asarray(Image.open(path).convert("RGB"))
        for path in sorted(EXAMPLES.glob("*.jpg"))
    }


@pytest.fixture(params=SERVERS)
def index(request: pytest.FixtureRequest, originals: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The URL of a node, and its index with a document of image-match for each original."""
    url, name = request.getfixturevalue(request.param), f"image-match-{uuid.uuid4().hex[:12]}"
    lines = [
        json.dumps(line)
        for number, (path, pixels) in enumerate(originals.items())
        for line in ({"index": {}}, document(path, pixels, number=number, metadata={"number": number}))
    ]
    reply = requests.post(
        f"{url}/{name}/_bulk?refresh=true",
        data="\n".join(lines) + "\n",
        headers={"Content-Type": "application/x-ndjson"},
        timeout=60,
    ).json()
    assert reply["errors"] is False
    yield url, name
    requests.delete(f"{url}/{name}", timeout=60)


def test_every_original_is_found_at_100(index: tuple[str, str], originals: dict[str, Any], tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "match.db")) as store, closing(Index(*index)) as source:
        store.prepare()
        progress = ImportProgress(tmp_path / "progress.json")
        counts = Importing(index=source, store=store, progress=progress, report=lambda _: None).run()

        queries = np.stack([sign(pixels) for pixels in originals.values()])
        candidates = store.candidates(queries, limit=1)
        names = store.filepaths_after(0, limit=100).filepaths

    assert dict(counts) == {"stored": len(originals)}
    assert names == list(originals)
    assert [nearest.filepath for [nearest] in candidates] == list(originals)
    scores = [
        score(distances(query, nearest.signatures[0][None]))
        for query, [nearest] in zip(queries, candidates, strict=True)
    ]
    assert scores == [100.0] * len(originals)
