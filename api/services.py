"""What the endpoints need."""

from dataclasses import dataclass

from api.dependency_checks import DependencyChecks
from api.gate import Gate
from api.metrics import Metrics
from api.pictures import Pictures
from api.work.intake import Intake
from api.work.recovery import Recovery
from api.work.waiting import Waiters
from common.config import Settings
from common.queue.leases import Leases
from common.queue.ledger import Ledger
from common.queue.sequence import SequenceNumbers
from common.queue.task_pages import TaskPages
from common.store.base import Store


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints need."""

    settings: Settings
    store: Store
    ledger: Ledger
    task_pages: TaskPages
    sequence: SequenceNumbers
    leases: Leases
    intake: Intake
    recovery: Recovery
    pictures: Pictures
    waiters: Waiters
    searching: Gate
    waiting: Gate
    batching: Gate
    dependency_checks: DependencyChecks
    metrics: Metrics
