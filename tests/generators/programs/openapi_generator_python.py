"""Use the service by openapi-generator's client in Python: the address, a collection, a folder of images, their origin.

It prints the answers as JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import openapi_client
from openapi_client.exceptions import ApiException

address, collection, images, origin = sys.argv[1:]
client = openapi_client.ApiClient(openapi_client.Configuration(host=address))
adding = openapi_client.AddingApi(client)
search_api = openapi_client.SearchingApi(client)
stored_images = openapi_client.StoredImagesApi(client)
batches = openapi_client.BatchesApi(client)
tasks = openapi_client.TasksApi(client)


def file(name: str) -> tuple[str, bytes]:
    return name, (Path(images) / name).read_bytes()


def add_image(**fields: Any) -> openapi_client.Task:
    reply = adding.add(collection=collection, **fields)
    assert reply.task is not None
    return reply.task


def ended(task_id: str) -> str:
    """Follow a task to its end."""
    while (state := tasks.task(task_id).result[0].state) in {"pending", "running"}:
        time.sleep(0.1)
    return state


def batch_at_its_end(batch_id: str) -> list[object]:
    """Follow a batch to its end."""
    while (batch := batches.one_batch(batch_id).result[0]).state == "running":
        time.sleep(0.1)
    return [batch.state, batch.succeeded]


def find(album: str, **query: Any) -> list[str]:
    reply = search_api.search(collection=collection, limit=1, filter={"album": album}, **query)
    return [match.filepath for match in reply.result]


def code_of_unknown_filepath() -> str:
    try:
        search_api.search(collection=collection, filepath="unknown")
    except ApiException as error:
        return error.data.code if isinstance(error.data, openapi_client.Failure) else ""
    return ""


by_file = add_image(image=file("chelsea.jpg"), filepath="file", metadata='{"album": "cats"}', wait=60)
by_url = add_image(url=f"{origin}/coffee.jpg", filepath="url", metadata='{"album": "drinks"}')
states = [by_file.state, ended(by_url.id)]
names = ["a, 1", "a, 2"]
many = adding.add(
    collection=collection,
    filepaths=names,
    images=[file("rocket.jpg"), file("moose.jpg")],
    x_batch_id=f"{collection}-batch",
)
where = openapi_client.CountBody(collection=collection, filter={"album": "cats"})
answers = {
    "states": states,
    "outcomes": [outcome.status for outcome in many.result],
    "batch": batch_at_its_end(f"{collection}-batch"),
    "by_file": find("cats", image=file("chelsea.jpg")),
    "by_url": find("drinks", url=f"{origin}/coffee.jpg"),
    "by_filepath": find("cats", filepath="file"),
    "in_another_album": find("drinks", filepath="file"),
    "code": code_of_unknown_filepath(),
    "count": stored_images.count_post(where).result[0],
}
stored_images.delete(delete_body=openapi_client.DeleteBody(collection=collection, filepaths=names))
# Not by GET: the generator has a wrong type for a filter in the query.
where_to_list = openapi_client.ListBody(collection=collection, filter={"album": "cats"}, limit=1)
listed = stored_images.list_post(where_to_list)
print(json.dumps(answers | {"list": listed.result}))
