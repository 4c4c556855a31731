"""Use the service by the client of openapi-python-client: the address, a collection, a folder of images, their origin.

It prints the answers as JSON.
"""

import io
import json
import sys
import time
from pathlib import Path

from made import AuthenticatedClient
from made.api.adding import add
from made.api.batches import one_batch
from made.api.searching import search
from made.api.stored_images import count_post, delete, list_
from made.api.tasks import task
from made.models import (
    AddBody,
    AddReply,
    BatchState,
    CountBody,
    CountBodyFilter,
    CountReply,
    DeleteBody,
    Failure,
    ItemOutcome,
    ListFilter,
    ListReply,
    OneBatchReply,
    SearchBody,
    SearchBodyFilter,
    SearchReply,
    Task,
    TaskReply,
    TaskState,
)
from made.types import File

address, collection, images, origin = sys.argv[1:]
# The service has no keys, but the types of the calls want one.
any_key = "any"
client = AuthenticatedClient(base_url=address, token=any_key)


def file(name: str) -> File:
    return File(payload=io.BytesIO((Path(images) / name).read_bytes()), file_name=name, mime_type="image/jpeg")


def add_image(body: AddBody) -> Task:
    body.collection = collection
    reply = add.sync(client=client, body=body)
    assert isinstance(reply, AddReply), reply
    assert isinstance(reply.task, Task)
    return reply.task


def ended(task_id: str) -> str:
    """Follow a task to its end."""
    while True:
        reply = task.sync(task_id, client=client)
        assert isinstance(reply, TaskReply), reply
        if reply.result[0].state not in {TaskState.PENDING, TaskState.RUNNING}:
            return reply.result[0].state.value
        time.sleep(0.1)


def batch_at_its_end(batch_id: str) -> list[object]:
    """Follow a batch to its end."""
    while True:
        reply = one_batch.sync(batch_id, client=client)
        assert isinstance(reply, OneBatchReply), reply
        if reply.result[0].state is not BatchState.RUNNING:
            return [reply.result[0].state.value, reply.result[0].succeeded]
        time.sleep(0.1)


def find(body: SearchBody, album: str) -> list[str]:
    body.collection = collection
    body.limit = 1
    body.filter_ = SearchBodyFilter.from_dict({"album": album})
    reply = search.sync(client=client, body=body)
    assert isinstance(reply, SearchReply), reply
    return [match.filepath for match in reply.result]


def count(album: str) -> int:
    where = CountBodyFilter.from_dict({"album": album})
    reply = count_post.sync(client=client, body=CountBody(collection=collection, filter_=where))
    assert isinstance(reply, CountReply), reply
    return reply.result[0]


by_file = add_image(AddBody(image=file("chelsea.jpg"), filepath="file", metadata='{"album": "cats"}', wait=60))
by_url = add_image(AddBody(url=f"{origin}/coffee.jpg", filepath="url", metadata='{"album": "drinks"}'))
states = [by_file.state.value, ended(by_url.id)]
many = add.sync(
    client=client,
    body=AddBody(collection=collection, filepaths=["a, 1", "a, 2"], images=[file("rocket.jpg"), file("moose.jpg")]),
    x_batch_id=f"{collection}-batch",
)
assert isinstance(many, AddReply), many
outcomes = [outcome.status.value for outcome in many.result if isinstance(outcome, ItemOutcome)]
unknown = search.sync(client=client, body=SearchBody(collection=collection, filepath="unknown"))
assert isinstance(unknown, Failure), unknown
answers = {
    "states": states,
    "outcomes": outcomes,
    "batch": batch_at_its_end(f"{collection}-batch"),
    "by_file": find(SearchBody(image=file("chelsea.jpg")), "cats"),
    "by_url": find(SearchBody(url=f"{origin}/coffee.jpg"), "drinks"),
    "by_filepath": find(SearchBody(filepath="file"), "cats"),
    "in_another_album": find(SearchBody(filepath="file"), "drinks"),
    "code": unknown.code,
    "count": count("cats"),
}
delete.sync(client=client, body=DeleteBody(collection=collection, filepaths=["a, 1", "a, 2"]))
# The generator knows no style but `form`, so the key has its name.
listed = list_.sync(
    client=client, collection=collection, filter_=ListFilter.from_dict({"filter[album]": "cats"}), limit=1
)
assert isinstance(listed, ListReply), listed
print(json.dumps(answers | {"list": listed.result}))
