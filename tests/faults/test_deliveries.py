"""Messages that arrive late, out of order or twice: the newest request wins, and is stored once."""

import random

import requests

from common.queue.jobs import SINGLE_QUEUE
from common.queue.publisher import Publisher
from support.adds import Accepted, Item
from support.deployment import Deployment, size


def test_newest_request_wins_despite_late_or_repeated_messages(deployment: Deployment) -> None:
    count, paths = size(500, 2000), 60
    dice = random.Random(7)
    client = deployment.client()
    newest: dict[str, int | None] = {}
    accepted: list[Accepted] = []
    for number in range(count):
        filepath = f"{dice.randrange(paths)}"
        if dice.random() < 0.3:
            assert requests.delete(f"{client.url}/delete", data={"filepath": filepath}, timeout=30).ok
            newest[filepath] = None
        else:
            accepted += client.add_all([Item(filepath, number)])
            newest[filepath] = number
    shuffle_queue(deployment, dice)
    deployment.service.start_worker()
    deployment.service.start_worker()

    scenario = f"{count} adds and deletes of {paths} filepaths, their messages shuffled and repeated"
    outcomes = deployment.finish(scenario, accepted, newest=newest)

    assert len(newest) == paths
    assert (outcomes.stored, outcomes.lost) == (len(accepted), 0), outcomes


def shuffle_queue(deployment: Deployment, dice: random.Random) -> None:
    """Shuffle the queue, with a third of its messages repeated."""
    redis = deployment.dependencies.redis
    messages = redis.lrange(SINGLE_QUEUE, 0, -1)
    messages += dice.sample(messages, len(messages) // 3)
    dice.shuffle(messages)
    redis.delete(SINGLE_QUEUE)
    redis.lpush(SINGLE_QUEUE, *messages)


def test_a_message_delivered_four_times_is_stored_once(deployment: Deployment) -> None:
    count = size(50, 500)
    client = deployment.client()
    accepted = client.add_all(deployment.uploads(count))
    publisher = Publisher(deployment.redis.url)
    ledger = deployment.dependencies.ledger
    tasks = [task for add in accepted if (task := ledger.task(add.task_id)) is not None]
    for _ in range(3):
        publisher.send(tasks, queue=SINGLE_QUEUE)
    publisher.close()
    for _ in range(2):
        deployment.service.start_worker()

    outcomes = deployment.finish("every message four times, to two workers", accepted)

    assert (outcomes.accepted, outcomes.stored) == (count, count), outcomes
    assert deployment.dependencies.store.count() == count
