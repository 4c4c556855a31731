"""A control plane of real programs for the whole run, and namespaces in it."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from checks.definitions import DEFINITIONS
from checks.tools import MissingTool, fetch
from dev.cluster.control_plane import Cluster
from dev.cluster.namespaces import TIMEOUT_S, Namespace
from dev.cluster.programs import why_not
from support.waiting import wait_until

DISKS = 4


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    # In CI as well: a test run must not compile for half an hour.
    if reason := why_not():
        pytest.skip(reason)
    try:
        kinds = [file for module, pattern in DEFINITIONS.values() for file in sorted(fetch(module).glob(pattern))]
    except MissingTool as missing:
        pytest.skip(str(missing))
    with Cluster() as cluster:
        cluster.define(kinds)
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    namespace = Namespace(cluster)
    yield namespace
    namespace.delete()


@pytest.fixture
def disks(cluster: Cluster, namespace: Namespace) -> Iterator[None]:
    """Persistent volumes for the claims of the namespace: this cluster has no provisioner."""
    names = [f"{namespace.name}-{number}" for number in range(DISKS)]
    spec = {"capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec} for name in names
    )
    yield
    cluster.kubectl("delete", "persistentvolume", "--wait=false", *names)


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], bool]], bool]:
    """Wait for an effect, with a deadline for busy machines."""
    return partial(wait_until, within_s=TIMEOUT_S, every_s=0.2)
