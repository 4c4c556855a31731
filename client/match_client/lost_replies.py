"""Requests without a reply: the tasks that the service accepted, found by the id of their request."""

from collections import Counter
from collections.abc import Mapping
from math import ceil

from match_client.errors import RequestRejected
from match_client.results import Outcome, Task
from match_client.transport import Request, Transport

# In the order that a task passes them: one that moves on meanwhile is in two lists, not in none.
STATES = ("pending", "running", "succeeded", "superseded", "failed", "cancelled")
# The service's limits.
MAX_LISTED = 1000
MAX_IDS = 100
POLL_S = 1.0


def outcomes_of_request(
    transport: Transport, filepaths: Mapping[int, str], *, request_id: str, batch: str | None, collection: str | None
) -> dict[int, Outcome]:
    """Return the outcomes of a request's items that the service accepted, by their numbers.

    Only the newest tasks of each state are read, and names that the request has once. A missing outcome means that the
    item is to be sent again, with the idempotency key of the request.
    """
    names = Counter(filepaths.values())
    numbers = {filepath: number for number, filepath in filepaths.items() if names[filepath] == 1}
    outcomes: dict[int, Outcome] = {}
    for state in STATES:
        query = {"request_id": request_id, "state": state, "limit": f"{MAX_LISTED}"}
        query |= {} if batch is None else {"batch": batch}
        query |= {} if collection is None else {"collection": collection}
        for task in _tasks(transport, query):
            if (number := numbers.get(task.filepath)) is not None:
                outcomes[number] = _outcome(number, task)
    return outcomes


def wait_for_tasks(transport: Transport, outcomes: Mapping[int, Outcome], *, wait_s: float) -> dict[int, Outcome]:
    """Return the outcomes when their tasks have ended, at the latest after `wait_s`, as the lost reply would have."""
    current = dict(outcomes)
    for attempt in range(ceil(wait_s)):
        waiting = {one.task.id: number for number, one in current.items() if one.task and not one.task.has_ended}
        if not waiting:
            break
        if attempt:
            transport.pause(POLL_S)
        ids = list(waiting)
        for start in range(0, len(ids), MAX_IDS):
            query = {f"ids[{number}]": task_id for number, task_id in enumerate(ids[start : start + MAX_IDS])}
            reply = transport.send(Request(method="GET", path="/tasks", query=query))
            for task in map(Task.from_json, reply.result):
                current[waiting[task.id]] = _outcome(waiting[task.id], task)
    return current


def _tasks(transport: Transport, query: Mapping[str, str]) -> list[Task]:
    """Return the first page of tasks; none if the batch is unknown, or the key may not list them."""
    try:
        reply = transport.send_once(Request(method="GET", path="/tasks", query=query))
    except RequestRejected:
        return []
    return [Task.from_json(result) for result in reply.result]


def _outcome(number: int, task: Task) -> Outcome:
    """Return the outcome of an item that has a task, as the service reports it."""
    reason = task.error or task.warning
    message = f"the task was {task.state}" if task.state in {"superseded", "cancelled"} else reason and reason.message
    return Outcome(
        number=number,
        filepath=task.filepath,
        status="fail" if task.error else "warn" if message else "ok",
        errors=(message,) if message else (),
        code=None if reason is None else reason.code,
        task=task,
        replayed=True,
        batch=task.batch,
    )
