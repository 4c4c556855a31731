"""A control plane of real programs for the whole run, and places in it."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from checks.definitions import PLACES
from checks.tools import MissingTool, fetch
from dev.cluster.control_plane import Cluster
from dev.cluster.namespaces import TIMEOUT_S, Namespace
from dev.cluster.programs import why_not
from support.waiting import wait_until

DISKS = 4


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    # In CI as well: half an hour of compiling is more than a test run may ask for.
    if reason := why_not():
        pytest.skip(reason)
    try:
        kinds = [file for module, pattern in PLACES.values() for file in sorted(fetch(module).glob(pattern))]
    except MissingTool as missing:
        pytest.skip(str(missing))
    with Cluster() as cluster:
        cluster.define(kinds)
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    made = Namespace(cluster)
    yield made
    made.delete()


@pytest.fixture
def disks(cluster: Cluster, namespace: Namespace) -> Iterator[None]:
    """Persistent volumes for claims: the cluster has no provisioner."""
    names = [f"{namespace.name}-{number}" for number in range(DISKS)]
    spec = {"capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec} for name in names
    )
    yield
    cluster.kubectl("delete", "persistentvolume", "--wait=false", *names)


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], bool]], bool]:
    """Wait for an effect as long as a busy machine may need."""
    return partial(wait_until, within_s=TIMEOUT_S, every_s=0.2)
