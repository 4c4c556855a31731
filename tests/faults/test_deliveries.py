"""Messages that come late, in any order, twice or to two workers: the newest request wins, once in effect."""

import random

import requests

from api.publisher import Publisher
from common.queue.jobs import SINGLE_QUEUE
from support.accounts import Accepted, Item
from support.stage import Stage, size


def test_the_newest_request_wins_whatever_comes_late_or_twice(stage: Stage) -> None:
    count, paths = size(500, 2000), 60
    dice = random.Random(7)
    client = stage.client()
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
    shuffle_queue(stage, dice)
    stage.service.start_worker()
    stage.service.start_worker()

    scenario = f"{count} adds and deletes of {paths} filepaths, their messages shuffled and repeated"
    found = stage.finish(scenario, accepted, newest=newest)

    assert len(newest) == paths
    assert (found.stored, found.lost) == (len(accepted), 0)


def shuffle_queue(stage: Stage, dice: random.Random) -> None:
    """Mix what waits, a third of it twice."""
    redis = stage.parts.redis
    messages = redis.lrange(SINGLE_QUEUE, 0, -1)
    messages += dice.sample(messages, len(messages) // 3)
    dice.shuffle(messages)
    redis.delete(SINGLE_QUEUE)
    redis.lpush(SINGLE_QUEUE, *messages)


def test_a_message_that_two_workers_have_is_worked_on_once_in_effect(stage: Stage) -> None:
    count = size(50, 500)
    client = stage.client()
    accepted = client.add_all(stage.uploads(count))
    publisher = Publisher(stage.redis.url)
    tasks = [task for one in accepted if (task := stage.parts.ledger.task(one.task_id)) is not None]
    for _ in range(3):
        publisher.send(tasks, queue=SINGLE_QUEUE)
    publisher.close()
    for _ in range(2):
        stage.service.start_worker()

    found = stage.finish("every message four times, to two workers", accepted)

    assert (found.accepted, found.stored) == (count, count)
    assert stage.parts.store.count() == count
