"""Many pictures by one request, on both stores, over HTTP: each is stored and found, whatever becomes of the others."""

import json
from typing import Any

import pytest

from support.waiting import wait_until

Bytes = dict[str, bytes]


@pytest.fixture(params=["shared_stack", "elastic_stack"])
def stack(request: pytest.FixtureRequest) -> Any:
    """An empty collection."""
    found = request.getfixturevalue(request.param)
    found.empty()
    wait_until(lambda: found.ok("GET", "/count") == [0])
    return found


def test_many_uploads_are_found_when_the_request_that_waited_for_them_is_answered(
    stack: Any, photographs: Bytes
) -> None:
    names = [*photographs, "broken"]
    pictures = [*photographs.values(), next(iter(photographs.values()))[:5000]]
    fields = {f"filepaths[{number}]": name for number, name in enumerate(names)} | {"wait": "60"}
    files = {f"images[{number}]": picture for number, picture in enumerate(pictures)}

    answer = stack.call("POST", "/add", data=fields, files=files)

    *stored, broken = answer.json()["result"]
    assert (answer.status_code, answer.json()["status"]) == (200, "warn")
    assert {one["task"]["state"] for one in stored} == {"succeeded"}
    assert (broken["task"]["state"], broken["field"]) == ("failed", f"images[{len(photographs)}]")
    for name, picture in photographs.items():
        assert stack.search(picture)[0]["filepath"] == name


def test_lines_are_stored_each_for_itself(stack: Any, photographs: Bytes, picture_server: str) -> None:
    names = [*photographs] * 10
    lines = [
        {"url": f"{picture_server}/{name}", "filepath": f"{number}", "metadata": {"name": name}}
        for number, name in enumerate(names)
    ] + [{"url": f"{picture_server}/nowhere.jpg", "filepath": "nowhere"}]
    body = "".join(f"{json.dumps(line)}\n" for line in lines)

    answer = stack.call("POST", "/add/batch", data=body, headers={"Content-Type": "application/x-ndjson"})

    outcomes = [json.loads(line) for line in answer.text.splitlines()]
    assert {outcome["status"] for outcome in outcomes} == {"ok"}
    wait_until(lambda: stack.ok("GET", "/count") == [len(names)])
    assert stack.ok("GET", "/list", params={"limit": "1000"}) == [f"{number}" for number in range(len(names))]
    name, picture = next(iter(photographs.items()))
    assert {match["metadata"]["name"] for match in stack.search(picture)} == {name}
    wait_until(lambda: task(stack, outcomes[-1])["state"] == "failed")
    assert task(stack, outcomes[-1])["error"]["code"] == "http_status"


def task(stack: Any, outcome: dict[str, Any]) -> dict[str, Any]:
    [found] = stack.ok("GET", f"/tasks/{outcome['task']['id']}")
    told: dict[str, Any] = found
    return told
