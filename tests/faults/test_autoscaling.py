"""Workers that come and go with the queue, by the rule of the manifests: nothing is lost, nothing done twice."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from time import sleep

import pytest
from celery import Celery

from common.queue.broker import queue_settings
from harness.accounts import Accepted, Client, Item
from harness.autoscaling import Autoscaler, Rule
from harness.stage import Stage, size

MOST = 3
PICTURES = 300
# One worker alone takes longer for them than others take to start.
THREADS = {"MATCH_WORKER_THREADS": "2"}
# Workers are stopped in the middle of so few, which are work for one.
FEW = 30
# Seconds for the manifest's five minutes; longer than adding takes, so that no worker goes that has only just started.
CALM_S = 4


@dataclass
class Sender:
    """Adds pictures from a server that is far away, so many that there is always work."""

    stage: Stage
    client: Client
    items: Iterator[Item]
    accepted: list[Accepted] = field(default_factory=list)

    def keep(self, most: int, *, until: Callable[[], bool]) -> None:
        """Keep up to so many open until `until` says yes."""
        while not until():
            if (room := most - self.stage.parts.ledger.open_count()) > 0:
                items = islice(self.items, room)
                self.accepted += self.client.add_batch([replace(item, url=f"{item.url}?late") for item in items])
            sleep(0.05)


@pytest.fixture
def limits() -> dict[str, str]:
    """The defaults: nothing dies here, and a machine that is slow is no fault."""
    return {}


def test_workers_come_and_go_with_the_queue_and_nothing_is_lost_or_repeated(stage: Stage) -> None:
    rounds = size(1, 10)
    rule = Rule.read()
    rule = rule.smaller(target=PICTURES / MOST / rule.target, most=MOST, times=CALM_S / rule.calm_s)
    sender = Sender(stage, stage.client(), iter(stage.items(100_000)))
    most: list[int] = []
    with Celery(broker=stage.redis.url, set_as_current=False) as workers:
        workers.conf.update(queue_settings(stage.redis.url))
        with Autoscaler(stage.service, stage.parts.redis, rule, **THREADS) as scaler:
            for _ in range(rounds):
                sender.keep(PICTURES, until=lambda: len(workers.control.ping(timeout=0.5)) == MOST)
                most.append(len(scaler.running))
                sender.keep(FEW, until=lambda: len(scaler.running) == rule.least)

    found = stage.settle(f"workers 1 to {MOST} and back, {rounds} x", sender.accepted)

    assert most == [MOST] * rounds
    assert scaler.ended == [0] * (MOST - 1) * rounds
    assert (found.stored, found.repeated) == (len(sender.accepted), 0)
