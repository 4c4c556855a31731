"""flower beside the service: its pages, its password, and its read-only mode."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import requests

from dev.ports import free_port
from support.waiting import wait_until

LOGIN = ("somebody", "password-of-a-minute")


class Flower:
    """The flower of a running `make dev`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)

    def shows(self, path: str, text: str) -> bool:
        """Return whether the page has the text in time; events and periodic inspections update it."""

        def is_shown() -> bool:
            # flower starts after all other processes are ready.
            with suppress(requests.ConnectionError):
                return text in self.get(path, auth=LOGIN).text
            return False

        return wait_until(is_shown, f"{path} shows {text}", every_s=0.2)


@pytest.fixture(scope="module")
def stack(start_stack: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    port = free_port()
    stack = start_stack(
        tmp_path_factory.mktemp("flower"), FLOWER_PORT=str(port), FLOWER_BASIC_AUTH=":".join(LOGIN), WORKER_COUNT="1"
    )
    stack.flower = Flower(f"http://127.0.0.1:{port}")
    return stack


def test_flower_shows_workers_and_tasks_by_name(stack: Any, photographs: dict[str, bytes]) -> None:
    assert stack.flower.shows("/workers", "worker-1@")

    stack.add("one", next(iter(photographs.values())))

    assert stack.flower.shows("/metrics", 'task="match.add",type="task-succeeded"')


def test_flower_shows_the_queues_of_a_worker(stack: Any) -> None:
    assert stack.flower.shows("/workers", "worker-1@")
    [name] = re.findall(r"<td>(worker-1@[^<]+)</td>", stack.flower.get("/workers", auth=LOGIN).text)

    assert stack.flower.shows(f"/worker/{name}", "match-batch")


def test_flower_starts_after_the_workers(stack: Any) -> None:
    assert stack.flower.shows("/workers", "worker-1@")

    assert "Inspect method" not in (stack.home / "logs" / "flower.log").read_text()


def test_password_protects_flower_except_metrics_and_health(stack: Any) -> None:
    statuses = {
        path: stack.flower.get(path).status_code
        for path in ("/workers", "/tasks", "/broker", "/api/workers", "/metrics", "/healthcheck")
    }

    assert statuses == {
        "/workers": 401,
        "/tasks": 401,
        "/broker": 401,
        "/api/workers": 401,
        "/metrics": 200,
        "/healthcheck": 200,
    }


@pytest.mark.parametrize("path", ["/api/worker/shutdown/worker-1", "/api/task/send-task/match.add"])
def test_flower_changes_nothing(stack: Any, path: str) -> None:
    answer = requests.post(stack.flower.url + path, auth=LOGIN, json={"args": []}, timeout=30)

    assert (answer.status_code, answer.text) == (403, "Read only mode is enabled")
