"""Callbacks under faults: whatever dies, and however receivers behave, each task's end is told."""

import base64
import json
from collections.abc import Iterator
from threading import Lock
from time import monotonic

import pytest

from support.http_servers import Handler, LocalServer, serving
from support.stage import Stage, size
from support.waiting import wait_until

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"
# Of calls: one in so many is answered with an error, and one is taken without an answer.
ERRORS, SILENCES = 5, 7


class Receiver(LocalServer):
    """Counts how often the end of each task was told."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.lock = Lock()
        self.calls = 0
        self.told: dict[str, set[str]] = {}

    def take(self, body: bytes, id_: str) -> int:
        """Return the status to answer with, 0 for none."""
        with self.lock:
            self.calls += 1
            if not self.calls % ERRORS:
                return 500
            for task in json.loads(body)["tasks"]:
                self.told.setdefault(task["id"], set()).add(id_)
            return 204 if self.calls % SILENCES else 0

    def handle_error(self, *_: object) -> None:
        """Say nothing: that workers die is the point here."""


class _Handler(Handler):
    server: Receiver

    def answer(self) -> None:
        if status := self.server.take(self.body(), self.headers["webhook-id"]):
            self.reply(status)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as receiver:
        yield receiver


def test_a_worker_killed_again_and_again_takes_no_callback_along(stage: Stage, receiver: Receiver) -> None:
    kills, count = size(2, 20), size(300, 3000)
    settings = {
        "MATCH_WEBHOOK_SECRET": SECRET,
        "MATCH_FETCH_ALLOW": f"{stage.environment['MATCH_FETCH_ALLOW']},{receiver.address}",
        "MATCH_WEBHOOK_TIMEOUT_S": "2",
    }
    accepted = stage.client(**settings).add_batch(stage.items(count), callback_url=f"http://{receiver.address}/")
    worker = stage.service.start_worker(**settings)
    stage.kill_while_storing(worker, kills=kills, of=count)
    over = monotonic()

    found = stage.finish(f"worker killed {kills} times with callbacks", accepted, since=over)
    wait_until(lambda: len(receiver.told) == count, "every end is told", within_s=180)

    assert (found.accepted, found.stored) == (count, count)
    assert receiver.told.keys() == {one.task_id for one in accepted}
    # Each end is in one delivery, whatever became of its first attempts.
    assert {len(ids) for ids in receiver.told.values()} == {1}
