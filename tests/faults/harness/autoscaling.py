"""Runs workers by the rule that the manifests give to KEDA and the cluster's autoscaler."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from subprocess import TimeoutExpired
from threading import Event, Thread
from time import monotonic
from typing import Any, Self

import yaml
from redis import Redis

from dev.programs import Running
from harness.service import ROOT, Service

MANIFESTS = ROOT / "k8s"
# Kubernetes' own, where a manifest says nothing.
CALM_S = 300
POLL_S = 30
# A proposal that differs by less than a tenth from what runs is none.
TOLERANCE = 0.1
# What Kubernetes gives a worker that it stops.
GRACE_S = 60


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How many workers there are to be: one for each `target` members of the sorted set `key`, `least` to `most`.

    Looked at every `look_every_s`; fewer than there are only when no look of the last `calm_s` wanted more. The two
    times are in seconds.
    """

    key: str
    target: float
    least: int
    most: int
    look_every_s: float
    calm_s: float

    @classmethod
    def read(cls) -> Self:
        """Return the rule of the manifests' ScaledObject for the workers."""
        return cls.of(scaled_object()["spec"])

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Self:
        """Return the rule of a ScaledObject's `spec`. Its way to no worker at all, and from there, is not in it."""
        [metadata] = [trigger["metadata"] for trigger in spec["triggers"] if trigger["type"] == "redis"]
        down = (
            spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {}).get("scaleDown", {})
        )
        return cls(
            key=metadata["listName"],
            target=float(metadata["listLength"]),
            least=max(1, spec.get("minReplicaCount", 0)),
            most=spec["maxReplicaCount"],
            look_every_s=spec.get("pollingInterval", POLL_S),
            calm_s=down.get("stabilizationWindowSeconds", CALM_S),
        )

    def smaller(self, *, target: float, most: int, times: float) -> Self:
        """Return the rule for a trial: with parts of its target and of its times, and no more than `most` workers."""
        return replace(
            self,
            target=self.target * target,
            most=min(most, self.most),
            look_every_s=self.look_every_s * times,
            calm_s=self.calm_s * times,
        )

    def proposal(self, members: int, running: int) -> int:
        """Return how many workers so many members ask for, now that so many run."""
        if abs(members / (self.target * running) - 1) <= TOLERANCE:
            return running
        return min(max(ceil(members / self.target), self.least), self.most)


def scaled_object() -> dict[str, Any]:
    """Return the manifests' ScaledObject for the workers."""
    documents = (one for path in MANIFESTS.rglob("*.yaml") for one in yaml.safe_load_all(path.read_text()))
    [found] = [one for one in documents if one and one.get("kind") == "ScaledObject"]
    assert found["spec"]["scaleTargetRef"]["name"] == "match-worker"
    return dict(found)


class Autoscaler:
    """Starts and stops workers of `service` by `rule`, for as long as the `with` lasts."""

    def __init__(self, service: Service, redis: Redis, rule: Rule, **settings: str) -> None:
        self.rule = rule
        self.running: list[Running] = []
        self.most_running = 0
        # How each worker ended that was told to stop.
        self.ended: list[int] = []
        self._service = service
        self._redis = redis
        self._settings = settings
        self._proposals: deque[tuple[float, int]] = deque()
        self._stopping: list[Thread] = []
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._scale(self.rule.least)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for one in self._stopping:
            one.join()

    def alive(self) -> int:
        """Return how many workers there are, those included that were told to stop and have not ended."""
        return len(self.running) + sum(one.is_alive() for one in self._stopping)

    def _run(self) -> None:
        while not self._stop.wait(self.rule.look_every_s):
            self._scale(self._wanted(self._redis.zcard(self.rule.key)))

    def _wanted(self, members: int) -> int:
        now, running = monotonic(), len(self.running)
        self._proposals.append((now, self.rule.proposal(members, running)))
        while self._proposals[0][0] < now - self.rule.calm_s:
            self._proposals.popleft()
        newest = self._proposals[-1][1]
        return newest if newest >= running else min(running, max(proposal for _, proposal in self._proposals))

    def _scale(self, wanted: int) -> None:
        while len(self.running) < wanted:
            self.running.append(self._service.start_worker(**self._settings))
        self.most_running = max(self.most_running, len(self.running))
        while len(self.running) > wanted:
            # The youngest first, as a ReplicaSet chooses.
            worker = self.running.pop()
            self._service.let_go(worker)
            self._stopping.append(Thread(target=self._end, args=(worker,)))
            self._stopping[-1].start()

    def _end(self, worker: Running) -> None:
        worker.ask_to_stop()
        try:
            self.ended.append(worker._process.wait(GRACE_S))
        except TimeoutExpired:
            worker._process.kill()
            self.ended.append(worker._process.wait())
