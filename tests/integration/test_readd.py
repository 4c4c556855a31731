"""Images of earlier versions get local features, from their source URLs, by a real worker."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from common.queue.keys import OPEN
from common.store.base import DEFAULT_COLLECTION, Record
from common.wiring import Dependencies
from support.http_servers import serving
from support.image_server import ImageServer, signature
from support.processes import ROOT
from support.records import deletion, record
from support.waiting import wait_until


@pytest.fixture
def server() -> Any:
    with serving(ImageServer()) as server:
        yield server


def readd(environment: Mapping[str, str], *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "common.store.readd", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**environment, **settings}, capture_output=True, text=True, check=False
    )


def stored(parts: Dependencies, *filepaths: str) -> list[Record]:
    records = parts.store.records(filepaths, collection=DEFAULT_COLLECTION)
    return [records[filepath] for filepath in filepaths]


def test_images_without_features_are_added_again(
    parts: Dependencies, environment: dict[str, str], start_worker: Any, server: Any
) -> None:
    environment["MATCH_FETCH_ALLOW"] = server.url.removeprefix("http://")
    parts.store.put(
        [
            record("1", 1, signature(1), metadata={"kind": "old"}, url=f"{server.url}/1"),
            record("gone", 2, signature(2), url=f"{server.url}/nothing"),
            record("uploaded", 3, signature(3)),
        ]
    )
    start_worker()

    first = readd(environment)
    [added, gone, uploaded] = stored(parts, "1", "gone", "uploaded")
    again = readd(environment)

    assert added.features is not None
    assert (added.metadata, added.url) == ({"kind": "old"}, f"{server.url}/1")
    assert (gone.seq, gone.features, uploaded.seq) == (2, None, 3)
    assert first.stdout == again.stdout == "default\tuploaded\n"
    assert "1 failed: http_not_found, 1 succeeded, 1 without a URL" in first.stderr
    assert "1 failed: http_not_found, 1 with local features, 1 without a URL" in again.stderr
    assert (first.returncode, again.returncode) == (1, 1)
    assert stored(parts, "1")[0].seq == added.seq


def test_an_image_deleted_meanwhile_stays_deleted(
    parts: Dependencies, environment: dict[str, str], start_worker: Any, server: Any
) -> None:
    environment["MATCH_FETCH_ALLOW"] = server.url.removeprefix("http://")
    parts.store.put([record("1", 1, signature(1), url=f"{server.url}/1?late")])
    command = [sys.executable, "-m", "common.store.readd"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as run:
        wait_until(lambda: parts.redis.zcard(OPEN) == 1, "the image is in the queue")
        parts.store.put([deletion("1", 2)])
        start_worker()
        _, errors = run.communicate()

    assert (run.returncode, parts.store.count()) == (0, 0)
    assert "1 superseded" in errors


def test_without_local_features_nothing_is_added_again(environment: dict[str, str]) -> None:
    result = readd(environment, MATCH_LOCAL_FEATURES="false")

    assert result.returncode == 2
    assert "MATCH_LOCAL_FEATURES" in result.stderr
