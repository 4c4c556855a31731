"""Tasks in the ledger: accept them, end them, wait for their ends."""

from collections.abc import Sequence

from common.queue.ledger import Ledger
from common.queue.tasks import CLOSED_STATES, State, Task
from support.waiting import WITHIN_S, wait_until


def states(ledger: Ledger, tasks: Sequence[Task]) -> list[State]:
    """Return the states of the tasks that the ledger still has."""
    found = [ledger.task(task.id) for task in tasks]
    return [task.state for task in found if task is not None]


def have_ended(ledger: Ledger, tasks: Sequence[Task]) -> bool:
    """Return whether every task is closed; a task that is gone is not."""
    found = states(ledger, tasks)
    return len(found) == len(tasks) and CLOSED_STATES.issuperset(found)


def wait_for_ends(ledger: Ledger, tasks: Sequence[Task], *, within_s: float = WITHIN_S) -> list[State]:
    """Return the states of the tasks when all of them are closed."""
    wait_until(lambda: have_ended(ledger, tasks), f"{len(tasks)} tasks end", within_s=within_s)
    return states(ledger, tasks)
