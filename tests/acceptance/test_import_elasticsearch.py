"""The import of an index of image-match, killed and run again: each photograph is found at 100.

The nodes are real: Elasticsearch 2 to 9, and OpenSearch.
"""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import requests
from PIL import Image

from common.images.signature import distances, score, sign
from common.store.sqlite import SqliteStore
from dev.old_elasticsearch_node import NODES
from support.image_match_index import document
from support.match_command import ROOT
from support.waiting import wait_until

WITHIN_S = 300
ORIGINALS = 100
# Several pages of documents.
COPIES = 20
EXAMPLES = ROOT / "examples" / "images"
PHOTOGRAPHS = Path(os.environ.get("MATCH_TEST_DATA", ROOT.parent / "shared" / "data")) / "photos"
SERVERS = [
    *(pytest.param(version, marks=pytest.mark.elasticsearch, id=f"elasticsearch-{version}") for version in NODES),
    pytest.param("elasticsearch_url", marks=pytest.mark.elasticsearch, id="elasticsearch"),
    pytest.param("opensearch_url", marks=pytest.mark.opensearch, id="opensearch"),
]
# The document type of dsys/match; later versions have none.
TYPED, DOCUMENT_TYPE = {"2", "5", "6", "7"}, "images"


@pytest.fixture(scope="module")
def originals() -> list[Any]:
    """The pixels of photographs."""
    paths = [*sorted(PHOTOGRAPHS.glob("*.jpg")), *sorted(EXAMPLES.glob("*.jpg"))][:ORIGINALS]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, give_up: Callable[[str], NoReturn]) -> Iterator[tuple[str, str]]:
    """The URL of a node, and the path under which an index of it has documents."""
    node = NODES.get(request.param)
    if node is None:
        yield request.getfixturevalue(request.param), ""
        return
    if reason := node.jars.why_not():
        give_up(reason)
    with node() as started:
        yield started.url, f"/{DOCUMENT_TYPE}" if request.param in TYPED else ""


@pytest.fixture
def index(server: tuple[str, str], originals: list[Any]) -> Iterator[tuple[str, str]]:
    """The URL of a node, and its index with documents of image-match, several of each original."""
    (url, documents_path), name = server, f"image-match-{uuid.uuid4().hex[:12]}"
    documents = [document("", pixels) for pixels in originals]
    for copy in range(COPIES):
        lines = [
            json.dumps(line)
            for number, fields in enumerate(documents)
            for line in ({"index": {}}, fields | about(copy * len(originals) + number))
        ]
        reply = requests.post(
            f"{url}/{name}{documents_path}/_bulk?refresh=true",
            data="\n".join(lines) + "\n",
            headers={"Content-Type": "application/x-ndjson"},
            timeout=WITHIN_S,
        ).json()
        assert reply["errors"] is False
    yield url, name
    requests.delete(f"{url}/{name}", timeout=WITHIN_S)


def about(number: int) -> dict[str, Any]:
    """Return the path, the time and the metadata of the document with this number."""
    minute, second = divmod(number, 60)
    # image-match writes microseconds; the index sorts by milliseconds.
    time = f"2017-05-01T{12 + minute // 60:02}:{minute % 60:02}:{second:02}.{number:06}"
    return {"path": path_of(number), "timestamp": time, "metadata": {"number": number}}


def path_of(number: int) -> str:
    return f"http://192.0.2.1/{number:05}.jpg"


@pytest.mark.timeout(1800)
def test_a_killed_import_resumes_and_finds_each_original(
    index: tuple[str, str], originals: list[Any], tmp_path: Path
) -> None:
    documents = COPIES * len(originals)
    settings = {"MATCH_STORE_URL": f"sqlite:///{tmp_path / 'match.db'}", "MATCH_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "common.store.import_elasticsearch", *index]
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}

    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: any(tmp_path.glob("import-*.json")) or process.poll() is not None, every_s=0.001)
        process.send_signal(signal.SIGKILL)
    last = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False)

    assert process.returncode == -signal.SIGKILL
    assert last.returncode == 0, last.stderr
    assert f"{documents:,} documents, " in last.stderr
    assert last.stderr.endswith(f"match import: {documents:,} stored\n")
    with closing(SqliteStore(tmp_path / "match.db")) as store:
        store.prepare()
        names = store.filepaths_after(0, limit=documents + 1).filepaths
        queries = np.stack([sign(pixels) for pixels in originals])
        candidates = store.candidates(queries, limit=COPIES)
    assert names == [path_of(number) for number in range(documents)]
    for number, (query, nearest) in enumerate(zip(queries, candidates, strict=True)):
        copies = {path_of(copy * len(originals) + number) for copy in range(COPIES)}
        assert copies == {one.filepath for one in nearest}
        assert {score(distances(query, one.signatures[0][None])).item() for one in nearest} == {100.0}
