"""Adds over HTTP, and their outcomes as the store has them."""

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
RESPONSE_WITHIN_S = 180.0


@dataclass(frozen=True)
class Item:
    """An image to add: from `url` if it is set, else an upload of `data` or of the image with this number."""

    filepath: str
    number: int
    url: str = ""
    data: bytes = b""


@dataclass(frozen=True)
class Accepted:
    """An item that the API accepted with 2xx."""

    item: Item
    task_id: str


@dataclass(frozen=True)
class Outcomes:
    """Number of adds by outcome; `reasons` are the codes of the failed ones."""

    accepted: int
    stored: int
    failed: int
    lost: int
    repeated: int
    reasons: tuple[str, ...]


class Client:
    """Adds images over HTTP, in several threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.rejected: list[requests.Response] = []
        self.slowest_s = 0.0
        self._thread = local()

    def add(self, item: Item) -> requests.Response:
        """Add one image, and return the API's response."""
        if not hasattr(self._thread, "session"):
            self._thread.session = requests.Session()
        upload = {} if item.url else {"image": item.data or image(item.number)}
        fields = {"filepath": item.filepath} | ({"url": item.url} if item.url else {})
        response: requests.Response = self._thread.session.post(
            f"{self.url}/add", data=fields, files=upload or None, timeout=RESPONSE_WITHIN_S
        )
        self.slowest_s = max(self.slowest_s, response.elapsed.total_seconds())
        return response

    def add_until(self, deadline: float) -> list[requests.Response]:
        """Add the same image again and again until `deadline`, and return the responses."""
        responses = []
        while monotonic() < deadline:
            responses.append(self.add(Item("rejected", 0)))
            sleep(0.2)
        return responses

    def task(self, task_id: str) -> dict[str, Any]:
        """Return a task as the API reports it."""
        [task] = requests.get(f"{self.url}/tasks/{task_id}", timeout=RESPONSE_WITHIN_S).json()["result"]
        return dict(task)

    def batches(self) -> list[dict[str, Any]]:
        """Return the batches as the API reports them."""
        return list(requests.get(f"{self.url}/batches", timeout=RESPONSE_WITHIN_S).json()["result"])

    def add_all(self, items: Iterable[Item], *, patience_s: float = 0.0) -> list[Accepted]:
        """Add all items, retry each one for `patience_s`, and return the accepted ones."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            results = pool.map(lambda item: self._persist(item, monotonic() + patience_s), items)
            return [accepted for accepted in results if accepted is not None]

    def add_batch(self, items: Sequence[Item], **query: str) -> list[Accepted]:
        """Add items that have a URL in one batch, and return the accepted ones."""
        lines = [json.dumps({"filepath": item.filepath, "url": item.url}) for item in items]
        response = requests.post(
            f"{self.url}/add/batch",
            params=query,
            data="\n".join(lines),
            headers={"Content-Type": "application/x-ndjson"},
            timeout=RESPONSE_WITHIN_S,
        )
        outcomes = [json.loads(line) for line in response.text.splitlines()]
        return [
            Accepted(items[outcome["line"] - 1], outcome["task"]["id"]) for outcome in outcomes if "task" in outcome
        ]

    def _persist(self, item: Item, deadline: float) -> Accepted | None:
        while True:
            try:
                response = self.add(item)
            # No response, or an incomplete one.
            except requests.RequestException:
                pass
            else:
                if response.ok:
                    return Accepted(item, response.json()["task"]["id"])
                self.rejected.append(response)
            if monotonic() >= deadline:
                return None
            sleep(0.1)


def wait_for_ends(dependencies: Dependencies, accepted: Sequence[Accepted], *, within_s: float = 120) -> None:
    """Return when every task has ended."""
    pending = [add.task_id for add in accepted]

    def done() -> bool:
        pending[:] = [task_id for task_id in pending if not _has_ended(dependencies, task_id)]
        return not pending

    wait_until(done, f"all of {len(accepted)} tasks end", within_s=within_s)


def count_outcomes(
    dependencies: Dependencies, accepted: Sequence[Accepted], newest: Mapping[str, int | None] | None = None
) -> Outcomes:
    """Count the outcomes of accepted adds by what the store has.

    `newest` has the image number of the newest request for each filepath, or None for a delete. Without it, each
    filepath has one request. An older add counts as stored if the store has the newest image of its filepath.
    """
    newest = {add.item.filepath: add.item.number for add in accepted} if newest is None else newest
    dependencies.store.refresh()
    records = dependencies.store.records(list(newest))
    correct = {path for path, number in newest.items() if _is_stored(dependencies, path, records.get(path), number)}
    stored, lost, repeated = 0, 0, 0
    reasons: list[str] = []
    for add in accepted:
        task = dependencies.ledger.task(add.task_id)
        repeated += max(0, task.attempts - 1) if task else 0
        if add.item.filepath in correct:
            stored += 1
        elif task is not None and task.state is State.FAILED and task.code and task.error:
            reasons.append(task.code)
        else:
            lost += 1
    return Outcomes(len(accepted), stored, len(reasons), lost, repeated, tuple(reasons))


def _is_stored(dependencies: Dependencies, filepath: str, record: Record | None, number: int | None) -> bool:
    """Return whether the store has exactly this image, and a search returns it; None means no image."""
    if record is None or number is None:
        return record is None and number is None
    matches = search([signature(number)], dependencies.store, all_orientations=False)
    is_same = np.array_equal(record.signatures[0], signature(number))
    return is_same and filepath in {match.filepath for match in matches}


def _has_ended(dependencies: Dependencies, task_id: str) -> bool:
    task: Task | None = dependencies.ledger.task(task_id)
    return task is None or task.state in CLOSED_STATES
