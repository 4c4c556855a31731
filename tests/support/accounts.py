"""The accepted tasks of a test and their outcomes, which are read from the store and not from counters."""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from time import monotonic, sleep
from typing import Any

import numpy as np
import requests

from common.queue.tasks import CLOSED_STATES, State, Task
from common.search import search
from common.store.base import Record
from common.wiring import Dependencies
from support.image_server import image, signature
from support.waiting import wait_until

CLIENTS = 8
ANSWER_WITHIN_S = 90.0


@dataclass(frozen=True)
class Item:
    """An image to add: by `url` if it is set, else as an upload of `data` or of the image with this number."""

    filepath: str
    number: int
    url: str = ""
    data: bytes = b""


@dataclass(frozen=True)
class Accepted:
    """An item that the API answered with 2xx."""

    item: Item
    task_id: str


@dataclass(frozen=True)
class Account:
    """The counts of a scenario; `reasons` are the codes of its failed tasks."""

    accepted: int
    stored: int
    failed: int
    lost: int
    repeated: int
    reasons: tuple[str, ...]


class Client:
    """Adds images over HTTP, many at once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.refused: list[requests.Response] = []
        self.slowest_s = 0.0
        self._thread = local()

    def add(self, item: Item) -> requests.Response:
        """Add one image, and return the response."""
        if not hasattr(self._thread, "session"):
            self._thread.session = requests.Session()
        upload = {} if item.url else {"image": item.data or image(item.number)}
        fields = {"filepath": item.filepath} | ({"url": item.url} if item.url else {})
        answer: requests.Response = self._thread.session.post(
            f"{self.url}/add", data=fields, files=upload or None, timeout=ANSWER_WITHIN_S
        )
        self.slowest_s = max(self.slowest_s, answer.elapsed.total_seconds())
        return answer

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the API's description of a task."""
        [task] = requests.get(f"{self.url}/tasks/{task_id}", timeout=ANSWER_WITHIN_S).json()["result"]
        return dict(task)

    def add_all(self, items: Iterable[Item], *, patience_s: float = 0.0) -> list[Accepted]:
        """Add all and return the accepted ones; retry the others for `patience_s`, as clients do."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            tried = pool.map(lambda item: self._persist(item, monotonic() + patience_s), items)
            return [one for one in tried if one is not None]

    def add_batch(self, items: Sequence[Item], **query: str) -> list[Accepted]:
        """Add all in one batch request and return the accepted ones; each has a URL."""
        lines = [json.dumps({"filepath": item.filepath, "url": item.url}) for item in items]
        answer = requests.post(
            f"{self.url}/add/batch",
            params=query,
            data="\n".join(lines),
            headers={"Content-Type": "application/x-ndjson"},
            timeout=ANSWER_WITHIN_S,
        )
        outcomes = [json.loads(line) for line in answer.text.splitlines()]
        return [
            Accepted(items[outcome["line"] - 1], outcome["task"]["id"]) for outcome in outcomes if "task" in outcome
        ]

    def _persist(self, item: Item, deadline: float) -> Accepted | None:
        while True:
            try:
                answer = self.add(item)
            # No response, or half of one.
            except requests.RequestException:
                pass
            else:
                if answer.ok:
                    return Accepted(item, answer.json()["task"]["id"])
                self.refused.append(answer)
            if monotonic() >= deadline:
                return None
            sleep(0.1)


def wait_for_ends(parts: Dependencies, accepted: Sequence[Accepted], *, within_s: float = 120) -> None:
    """Return when every task has ended."""
    left = [one.task_id for one in accepted]

    def done() -> bool:
        left[:] = [task_id for task_id in left if not _ended(parts, task_id)]
        return not left

    wait_until(done, f"all of {len(accepted)} tasks end", within_s=within_s)


def account(
    parts: Dependencies, accepted: Sequence[Accepted], newest: Mapping[str, int | None] | None = None
) -> Account:
    """Count the outcomes of accepted tasks by the records in the store.

    `newest` has the number of each filepath's last image, or None if its last request was a deletion; without it, each
    filepath was added once. A superseded request counts as stored if the record of the newest request is right.
    """
    newest = {one.item.filepath: one.item.number for one in accepted} if newest is None else newest
    parts.store.refresh()
    records = parts.store.records(list(newest))
    right = {path for path, number in newest.items() if _is_stored(parts, path, records.get(path), number)}
    stored, lost, repeated = 0, 0, 0
    reasons: list[str] = []
    for one in accepted:
        task = parts.ledger.task(one.task_id)
        repeated += max(0, task.attempts - 1) if task else 0
        if one.item.filepath in right:
            stored += 1
        elif task is not None and task.state is State.FAILED and task.code and task.error:
            reasons.append(task.code)
        else:
            lost += 1
    return Account(len(accepted), stored, len(reasons), lost, repeated, tuple(reasons))


def _is_stored(parts: Dependencies, filepath: str, record: Record | None, number: int | None) -> bool:
    """Return whether this image is stored and a search finds it; with None, whether no image is stored."""
    if record is None or number is None:
        return record is None and number is None
    matches = search(signature(number), parts.store, all_orientations=False)
    return np.array_equal(record.signatures[0], signature(number)) and filepath in {match.filepath for match in matches}


def _ended(parts: Dependencies, task_id: str) -> bool:
    task: Task | None = parts.ledger.task(task_id)
    return task is None or task.state in CLOSED_STATES
