"""Real workers and a real receiver: every end of a task is delivered even when processes die."""

import base64
import hashlib
import hmac
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from common.queue.callbacks import Callback, CallbackState
from common.queue.items import AddItem
from common.queue.jobs import BATCH_QUEUE, SINGLE_QUEUE, RequestContext
from common.queue.publisher import Publisher
from common.queue.tasks import Task
from common.wiring import Dependencies
from dev.ports import free_port
from support.http_servers import Handler, LocalServer, serving
from support.processes import running
from support.tasks import enqueue, task_of, wait_for_ends
from support.waiting import wait_until

SECRET = base64.b64encode(b"a secret of thirty-two bytes ...").decode()
WITHIN_S = 60
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
SHORT = {
    "MATCH_VISIBILITY_TIMEOUT_S": "6",
    "MATCH_STORE_HOLD_S": "1",
    "MATCH_FETCH_TIMEOUT_S": "1",
    "MATCH_DECODE_TIMEOUT_S": "1",
    "MATCH_WEBHOOK_TIMEOUT_S": "2",
}


class Calls(Handler):
    server: "Receiver"

    def answer(self) -> None:
        status = self.server.answer(self.path, self.headers, self.body())
        self.reply(status, headers={"Location": self.server.elsewhere} if status == 302 else {})


class Receiver(LocalServer):
    """Answers with `statuses`, of which the last repeats, and keeps the accepted tasks.

    `/hang` is answered when `end_hanging` is set.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(Calls, port)
        self.statuses = [204]
        self.elsewhere = ""
        self.calls: list[tuple[str, str, bytes]] = []
        self.taken: list[dict[str, Any]] = []
        self.end_hanging = Event()

    def answer(self, path: str, headers: Any, body: bytes) -> int:
        self.calls.append((path, headers["webhook-id"], body))
        if path == "/hang":
            self.end_hanging.wait()
        if not verified(headers, body):
            return 401
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == 204:
            self.taken += json.loads(body)["tasks"]
        return status

    def handle_error(self, *_: object) -> None:
        """Log nothing: workers are expected to die."""


def verified(headers: Any, body: bytes) -> bool:
    """Verify a signature by the specification, without code of the service."""
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = hmac.new(base64.b64decode(SECRET), content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(expected).decode()}" in headers["webhook-signature"].split(" ")


@pytest.fixture
def start_receiver() -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as running:

        def start(port: int = 0) -> Receiver:
            receiver = running.enter_context(serving(Receiver(port)))
            running.callback(receiver.end_hanging.set)
            return receiver

        yield start


@pytest.fixture
def receiver(start_receiver: Any) -> Receiver:
    receiver: Receiver = start_receiver()
    return receiver


@pytest.fixture
def start(start_worker: Any) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a worker that may call these receivers."""

    def start(*receivers: Receiver, **more: str) -> subprocess.Popen[bytes]:
        allowed = ",".join(receiver.address for receiver in receivers)
        worker: subprocess.Popen[bytes] = start_worker(
            **{"MATCH_WEBHOOK_SECRET": f"whsec_{SECRET}", "MATCH_FETCH_ALLOW": allowed, **SHORT, **more}
        )
        return worker

    return start


@pytest.fixture
def send(parts: Dependencies, publisher: Publisher) -> Callable[..., list[Task]]:
    """Accept tasks that fail at once: their uploads are gone."""

    def send(url: str, *, count: int = 1, queue: str = SINGLE_QUEUE) -> list[Task]:
        items = [AddItem(filepath=f"{number}", upload_id="gone") for number in range(count)]
        tasks = enqueue(parts.ledger, items, queue=queue, context=RequestContext(callback_url=url))
        publisher.send(tasks, queue=queue)
        return tasks

    return send


def callback(parts: Dependencies, task: Task) -> Callback:
    result = task_of(parts.ledger, task.id).callback
    assert result is not None
    return result


def wait_for(parts: Dependencies, tasks: Sequence[Task], fits: Callable[[Callback], bool]) -> None:
    wait_until(lambda: all(fits(callback(parts, task)) for task in tasks), "the callbacks get so far")


def delivered(call: Callback) -> bool:
    return call.state is CallbackState.DELIVERED


def failed_once(call: Callback) -> bool:
    return call.attempts >= 1 and call.error is not None


def test_every_end_is_delivered(parts: Dependencies, receiver: Receiver, start: Any, send: Any) -> None:
    cancelled = send(f"{receiver.url}/", count=1)
    parts.ledger.cancel_many([cancelled[0].id])
    failed = send(f"{receiver.url}/other?token=1", count=3)

    start(receiver)
    wait_for(parts, cancelled + failed, delivered)

    assert {(task["id"], task["state"]) for task in receiver.taken} == {
        (cancelled[0].id, "cancelled"),
        *((task.id, "failed") for task in failed),
    }
    assert {path for path, _, _ in receiver.calls} == {"/", "/other?token=1"}


def test_a_batch_makes_few_calls(parts: Dependencies, receiver: Receiver, start: Any, send: Any) -> None:
    tasks = send(f"{receiver.url}/", count=1000, queue=BATCH_QUEUE)

    start(receiver)
    wait_for(parts, tasks, delivered)

    assert sorted(task["id"] for task in receiver.taken) == sorted(task.id for task in tasks)
    assert len(receiver.calls) <= 20


def test_failed_delivery_is_repeated_unchanged(parts: Dependencies, receiver: Receiver, start: Any, send: Any) -> None:
    receiver.statuses = [503, 204]
    tasks = send(f"{receiver.url}/", count=2)

    start(receiver)
    wait_for(parts, tasks, failed_once)
    wait_for(parts, tasks, delivered)

    assert receiver.calls[0] == receiver.calls[1]
    assert {callback(parts, task).attempts for task in tasks} == {2}


def test_no_redirect_is_followed(
    parts: Dependencies, receiver: Receiver, start_receiver: Any, start: Any, send: Any
) -> None:
    internal = start_receiver()
    receiver.statuses, receiver.elsewhere = [302], f"{internal.url}/admin"
    tasks = send(f"{receiver.url}/")

    start(receiver, internal)
    wait_for(parts, tasks, failed_once)

    assert callback(parts, tasks[0]).error == "127.0.0.1 answered with status 302"
    assert internal.calls == []


def test_a_private_address_is_not_called(parts: Dependencies, receiver: Receiver, start: Any, send: Any) -> None:
    tasks = send(f"{receiver.url}/")

    start()
    wait_for(parts, tasks, failed_once)

    assert callback(parts, tasks[0]).error == "127.0.0.1 is not on the public internet"
    assert receiver.calls == []


def test_metrics_count_waiting_and_ended_callbacks(
    parts: Dependencies, receiver: Receiver, start_receiver: Any, start: Any, send: Any, client: FlaskClient
) -> None:
    gone, broken = start_receiver(), start_receiver()
    gone.statuses, broken.statuses = [410], [500]
    start(receiver, gone, broken)

    taken, unwanted, waiting = send(f"{receiver.url}/", count=3), send(f"{gone.url}/", count=2), send(f"{broken.url}/")
    wait_for(parts, taken, delivered)
    wait_for(parts, unwanted + waiting, failed_once)

    samples = {
        name.removeprefix("match_callbacks"): value for name, value in scraped(client, "match_callbacks").items()
    }
    assert 0 < samples.pop("_oldest_age_seconds") < WITHIN_S
    assert samples == {
        "_waiting": 1,
        '_total{outcome="delivered"}': 3,
        '_total{outcome="failed"}': 2,
        '_total{outcome="dropped"}': 0,
    }


def scraped(client: FlaskClient, start: str) -> dict[str, float]:
    """Return the samples of the metrics whose names start so."""
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(start)]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_hanging_receiver_delays_no_other(
    parts: Dependencies, receiver: Receiver, start_receiver: Any, start: Any, send: Any
) -> None:
    hanging = start_receiver()
    stuck = send(f"{hanging.url}/hang")
    start(receiver, hanging, MATCH_WEBHOOK_TIMEOUT_S="60")
    wait_until(lambda: bool(hanging.calls), "the receiver hangs")

    tasks = send(f"{receiver.url}/", count=5)
    wait_for(parts, tasks, delivered)

    assert callback(parts, stuck[0]) == Callback()


def test_delivery_without_a_response_times_out(parts: Dependencies, receiver: Receiver, start: Any, send: Any) -> None:
    tasks = send(f"{receiver.url}/hang")

    start(receiver)
    wait_for(parts, tasks, failed_once)

    assert callback(parts, tasks[0]).error == "127.0.0.1 sent no complete response within 2 s"


def test_dead_receiver_gets_its_callbacks_after_a_restart(
    parts: Dependencies, start_receiver: Any, start: Any, send: Any
) -> None:
    dead = start_receiver()
    dead.shutdown()
    dead.server_close()
    tasks = send(f"{dead.url}/")
    start(dead)
    wait_for(parts, tasks, failed_once)

    alive = start_receiver(dead.server_port)
    wait_for(parts, tasks, delivered)

    assert [task["id"] for task in alive.taken] == [tasks[0].id]


def test_worker_killed_before_the_delivery_loses_no_callback(
    parts: Dependencies, receiver: Receiver, start: Any, send: Any
) -> None:
    tasks = send(f"{receiver.url}/", count=20)
    first = start(receiver)
    wait_for_ends(parts.ledger, tasks)

    first.kill()
    first.wait()
    called_before = len(receiver.calls)
    start(receiver)
    wait_for(parts, tasks, delivered)

    assert called_before == 0
    assert sorted(task["id"] for task in receiver.taken) == sorted(task.id for task in tasks)


def test_worker_killed_during_a_delivery_leaves_it_to_another(
    parts: Dependencies, receiver: Receiver, start: Any, send: Any
) -> None:
    tasks = send(f"{receiver.url}/hang")
    first = start(receiver)
    wait_until(lambda: bool(receiver.calls), "the receiver is called")

    first.kill()
    first.wait()
    receiver.end_hanging.set()
    start(receiver)
    wait_for(parts, tasks, delivered)

    assert len({(id_, body) for _, id_, body in receiver.calls}) == 1


def test_stopping_worker_does_not_wait_for_a_receiver(receiver: Receiver, start: Any, send: Any) -> None:
    send(f"{receiver.url}/hang")
    worker = start(receiver, MATCH_WEBHOOK_TIMEOUT_S="60")
    wait_until(lambda: bool(receiver.calls), "the receiver is called")

    worker.send_signal(signal.SIGTERM)

    # A worker that waited would exit with 1 after MATCH_STOP_WITHIN_S.
    assert worker.wait(WITHIN_S) == 0
    assert not receiver.end_hanging.is_set()


def test_receiver_of_the_guide_accepts_only_signed_callbacks(
    parts: Dependencies, start: Any, send: Any, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "receiver.log"
    [code] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    with running("-c", code, f"{port}", environment={"WEBHOOK_SECRET": f"whsec_{SECRET}"}, log=log):
        wait_until(lambda: answers(port), "the receiver of the guide answers")
        [task] = send(f"http://127.0.0.1:{port}/")
        start(MATCH_FETCH_ALLOW=f"127.0.0.1:{port}")
        wait_for(parts, [task], delivered)
        forged = requests.post(f"http://127.0.0.1:{port}/", data=b"{}", timeout=30)

    printed = [line for line in log.read_text().splitlines() if " - - " not in line]
    assert printed == [f"{task.id} {task.filepath} failed"]
    assert forged.status_code == 401


def answers(port: int) -> bool:
    try:
        return requests.post(f"http://127.0.0.1:{port}/", data=b"", timeout=30).status_code == 401
    except requests.ConnectionError:
        return False
