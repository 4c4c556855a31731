"""Callbacks while workers die and receivers fail: each task's end is reported."""

import base64
import json
from collections.abc import Iterator
from threading import Lock
from time import monotonic

import pytest

from support.deployment import Deployment, size
from support.http_servers import Handler, LocalServer, serving
from support.waiting import wait_until

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"
# Every fifth request has an error as its reply, every seventh has no reply.
ERROR_EVERY, SILENT_EVERY = 5, 7


class Receiver(LocalServer):
    """Records the webhook ids with which each task's end was reported."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.lock = Lock()
        self.requests = 0
        self.reports: dict[str, set[str]] = {}

    def receive(self, body: bytes, id_: str) -> int:
        """Return the status to reply with, 0 for no reply."""
        with self.lock:
            self.requests += 1
            if not self.requests % ERROR_EVERY:
                return 500
            for task in json.loads(body)["tasks"]:
                self.reports.setdefault(task["id"], set()).add(id_)
            return 204 if self.requests % SILENT_EVERY else 0

    def handle_error(self, *_: object) -> None:
        """Report nothing: killed workers cause errors."""


class _Handler(Handler):
    server: Receiver

    def answer(self) -> None:
        if status := self.server.receive(self.body(), self.headers["webhook-id"]):
            self.reply(status)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as receiver:
        yield receiver


def test_killed_workers_lose_no_callback(deployment: Deployment, receiver: Receiver) -> None:
    kills, count = size(2, 20), size(300, 3000)
    settings = {
        "MATCH_WEBHOOK_SECRET": SECRET,
        "MATCH_FETCH_ALLOW": f"{deployment.environment['MATCH_FETCH_ALLOW']},{receiver.address}",
        "MATCH_WEBHOOK_TIMEOUT_S": "2",
    }
    client = deployment.client(**settings)
    accepted = client.add_batch(deployment.items(count), callback_url=f"http://{receiver.address}/")
    worker = deployment.service.start_worker(**settings)
    deployment.kill_while_storing(worker, kills=kills, of=count)
    killed = monotonic()

    outcomes = deployment.finish(f"worker killed {kills} times with callbacks", accepted, since=killed)
    wait_until(lambda: len(receiver.reports) == count, "every end is reported", within_s=180)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert receiver.reports.keys() == {add.task_id for add in accepted}
    # A repeated callback has the same id as the first attempt.
    assert {len(ids) for ids in receiver.reports.values()} == {1}
