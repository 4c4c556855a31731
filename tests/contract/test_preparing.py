"""A store that is not there yet is waited for, in the background."""

import threading
import time
from typing import Any

import pytest

from common.errors import StoreError
from common.store import preparing
from common.store.preparing import prepare_soon


def wait_for_the_end() -> None:
    deadline = time.monotonic() + 30
    while any(thread.name == "prepare-store" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_store_that_is_away_is_prepared_when_it_comes(
    memory_store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        memory_store.away = len(pauses) < 8

    monkeypatch.setattr(preparing, "sleep", pause)
    memory_store.away = True

    prepare_soon(memory_store)
    wait_for_the_end()

    assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10]
    assert {line.levelname for line in caplog.records} == {"WARNING"}


def test_a_store_that_cannot_be_used_is_told_once_without_a_trace(
    memory_store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare() -> None:
        raise StoreError("opensearch answers")

    monkeypatch.setattr(memory_store, "prepare", prepare)

    prepare_soon(memory_store)
    wait_for_the_end()

    assert [(line.levelname, line.getMessage(), line.exc_info) for line in caplog.records] == [
        ("ERROR", "the store cannot be used: opensearch answers", None)
    ]
