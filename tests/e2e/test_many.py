"""Many images in one request, on both stores, over HTTP: each is stored and found, or fails, separately."""

import json
from typing import Any

import pytest

from support.index_servers import STACKS
from support.waiting import wait_until

Bytes = dict[str, bytes]


@pytest.fixture(params=["shared_stack", *STACKS])
def stack(request: pytest.FixtureRequest) -> Any:
    """An empty collection."""
    stack = request.getfixturevalue(request.param)
    stack.delete_all()
    wait_until(lambda: stack.ok("GET", "/count") == [0])
    return stack


def test_uploads_are_found_when_their_wait_is_answered(stack: Any, photographs: Bytes) -> None:
    names = [*photographs, "broken"]
    images = [*photographs.values(), next(iter(photographs.values()))[:5000]]
    fields = {f"filepaths[{number}]": name for number, name in enumerate(names)} | {"wait": "60"}
    files = {f"images[{number}]": image for number, image in enumerate(images)}

    answer = stack.call("POST", "/add", data=fields, files=files)

    *stored, broken = answer.json()["result"]
    assert (answer.status_code, answer.json()["status"]) == (200, "warn")
    assert {one["task"]["state"] for one in stored} == {"succeeded"}
    assert (broken["task"]["state"], broken["field"]) == ("failed", f"images[{len(photographs)}]")
    for name, image in photographs.items():
        assert stack.search(image)[0]["filepath"] == name


def test_each_line_is_stored_or_fails_separately(stack: Any, photographs: Bytes, image_server: str) -> None:
    names = [*photographs] * 10
    lines = [
        {"url": f"{image_server}/{name}", "filepath": f"{number}", "metadata": {"name": name}}
        for number, name in enumerate(names)
    ] + [{"url": f"{image_server}/nowhere.jpg", "filepath": "nowhere"}]
    body = "".join(f"{json.dumps(line)}\n" for line in lines)

    answer = stack.call("POST", "/add/batch", data=body, headers={"Content-Type": "application/x-ndjson"})

    outcomes = [json.loads(line) for line in answer.text.splitlines()]
    assert {outcome["status"] for outcome in outcomes} == {"ok"}
    wait_until(lambda: stack.ok("GET", "/count") == [len(names)])
    assert stack.ok("GET", "/list", params={"limit": "1000"}) == [f"{number}" for number in range(len(names))]
    name, image = next(iter(photographs.items()))
    assert {match["metadata"]["name"] for match in stack.search(image)} == {name}
    wait_until(lambda: task(stack, outcomes[-1])["state"] == "failed")
    assert task(stack, outcomes[-1])["error"]["code"] == "http_not_found"


def task(stack: Any, outcome: dict[str, Any]) -> dict[str, Any]:
    [result] = stack.ok("GET", f"/tasks/{outcome['task']['id']}")
    return dict(result)
