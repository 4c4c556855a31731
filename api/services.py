"""Dependencies of the endpoints."""

from dataclasses import dataclass

from api.concurrency import ConcurrencyLimit
from api.dependency_checks import DependencyChecks
from api.metrics import Metrics
from api.usage import UsageRecorder
from api.use_cases.add_images import AddImages
from api.use_cases.delete_images import DeleteImages
from api.use_cases.delete_selected import DeleteSelected
from api.use_cases.manage_batches import ManageBatches
from api.use_cases.manage_collections import ManageCollections
from api.use_cases.manage_tasks import ManageTasks
from api.use_cases.patch_images import PatchImages
from api.use_cases.search_images import SearchImages
from api.use_cases.wait_for_tasks import TaskWaiter
from common.config import Settings
from common.queue.batches import Batches
from common.queue.leases import Leases
from common.queue.ledger import Ledger
from common.queue.pause import Pause
from common.queue.task_pages import TaskPages
from common.store.base import Store
from common.store.thumbnails import Thumbnails


@dataclass(frozen=True, slots=True)
class Services:
    """Dependencies of the endpoints; the composition root (`api.wsgi`) opens them."""

    settings: Settings
    store: Store
    thumbnails: Thumbnails | None
    ledger: Ledger
    task_pages: TaskPages
    batches: Batches
    leases: Leases
    pause: Pause
    add_images: AddImages
    delete_images: DeleteImages
    delete_selected: DeleteSelected
    patch_images: PatchImages
    collections: ManageCollections
    manage_tasks: ManageTasks
    manage_batches: ManageBatches
    search_images: SearchImages
    task_waiter: TaskWaiter
    wait_limit: ConcurrencyLimit
    batch_limit: ConcurrencyLimit
    search_batch_limit: ConcurrencyLimit
    dependency_checks: DependencyChecks
    metrics: Metrics
    usage: UsageRecorder
