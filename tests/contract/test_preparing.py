"""Preparing a store in the background, which waits until the store is available."""

import threading
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from common.errors import StoreError, StoreUnavailable, StoreUnusable
from common.store import preparing
from common.store.preparing import prepare_in_background, prepare_within
from support.commands import run_python
from support.waiting import wait_until


def wait_for_the_thread() -> None:
    wait_until(lambda: not any(thread.name == "prepare-store" for thread in threading.enumerate()))


def run_prepare(store_url: str) -> "CompletedProcess[str]":
    return run_python("-m", "common.store.prepare", environment={"MATCH_STORE_URL": store_url})


def test_unavailable_store_is_prepared_once_it_is_available(
    memory_store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        memory_store.away = len(pauses) < 8

    monkeypatch.setattr(preparing, "sleep", pause)
    memory_store.away = True

    prepare_in_background(memory_store)
    wait_for_the_thread()

    assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10]
    assert {line.levelname for line in caplog.records} == {"WARNING"}


def test_unusable_store_is_logged_once_without_a_traceback(
    memory_store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare() -> None:
        raise StoreError("opensearch answers")

    monkeypatch.setattr(memory_store, "prepare", prepare)

    prepare_in_background(memory_store)
    wait_for_the_thread()

    assert [(line.levelname, line.getMessage(), line.exc_info) for line in caplog.records] == [
        ("ERROR", "the store cannot be used: opensearch answers", None)
    ]


def test_repaired_store_is_prepared_without_a_restart(
    memory_store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    causes = [StoreUnusable("damaged")] * 3

    def prepare() -> None:
        if causes:
            raise causes.pop()

    monkeypatch.setattr(preparing, "sleep", lambda _: None)
    monkeypatch.setattr(memory_store, "prepare", prepare)

    prepare_in_background(memory_store)
    wait_for_the_thread()

    assert causes == []
    assert [line.getMessage() for line in caplog.records] == ["the store cannot be used: damaged"]


def test_preparing_ends_at_its_deadline(memory_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(preparing, "sleep", pauses.append)
    memory_store.away = True

    with pytest.raises(StoreUnavailable):
        prepare_within(memory_store, 1.5)

    assert pauses[0] == 0.5
    # The clock hardly advances: the loop ends at the pause that would pass the deadline.
    assert max(pauses) <= 1


def test_command_reports_a_prepared_store(tmp_path: Path) -> None:
    done = run_prepare(f"sqlite:///{tmp_path}/match.db")

    assert (done.returncode, done.stderr) == (0, "match prepare: the store is ready\n")
    assert (tmp_path / "match.db").is_file()


def test_command_names_an_invalid_setting(tmp_path: Path) -> None:
    done = run_prepare(f"mysql:///{tmp_path}")

    assert done.returncode == 2
    assert "MATCH_STORE_URL must look like" in done.stderr


def test_command_reports_why_a_store_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "match.db").write_bytes(b"not a database, but as long as one" * 100)

    done = run_prepare(f"sqlite:///{tmp_path}/match.db")

    assert done.returncode == 1
    assert done.stderr.startswith("match prepare: ")
    assert "Traceback" not in done.stderr
