"""The folder of prometheus-client's multiprocess mode: empty at each start, and writable."""

import os
from pathlib import Path

import pytest

from api import metrics_folder
from api.metrics_folder import VARIABLE, create_metrics_folder, remove_metrics_folder
from support.commands import run_python

ADDRESS = "127.0.0.1:8888"


@pytest.fixture(autouse=True)
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shared, temporary = tmp_path / "shm", tmp_path / "tmp"
    shared.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(metrics_folder, "SHARED_MEMORY", shared)
    monkeypatch.setattr(metrics_folder, "gettempdir", lambda: str(temporary))
    monkeypatch.setenv(VARIABLE, "")
    return shared


def test_folder_lasts_from_start_to_exit(shared_memory: Path) -> None:
    create_metrics_folder(ADDRESS)
    [folder] = shared_memory.iterdir()
    created = Path(os.environ[VARIABLE])

    remove_metrics_folder()

    assert created == folder
    assert list(shared_memory.iterdir()) == []
    assert VARIABLE not in os.environ


def test_start_deletes_files_of_killed_run() -> None:
    create_metrics_folder(ADDRESS)
    (Path(os.environ[VARIABLE]) / "counter_1.db").touch()

    create_metrics_folder(ADDRESS)

    assert list(Path(os.environ[VARIABLE]).iterdir()) == []


def test_folders_of_two_addresses_are_separate() -> None:
    create_metrics_folder(ADDRESS)
    kept = Path(os.environ[VARIABLE]) / "counter_1.db"
    kept.touch()

    create_metrics_folder("127.0.0.1:8889")

    assert kept.exists()


def test_temporary_folder_replaces_missing_shared_memory(shared_memory: Path, tmp_path: Path) -> None:
    shared_memory.rmdir()

    create_metrics_folder(ADDRESS)

    assert Path(os.environ[VARIABLE]).parent == tmp_path / "tmp"


def test_link_with_the_folders_name_is_not_followed(shared_memory: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (shared_memory / f"match-metrics-{ADDRESS}").symlink_to(victim)

    create_metrics_folder(ADDRESS)

    assert victim.is_dir()
    assert Path(os.environ[VARIABLE]).parent == tmp_path / "tmp"


def test_prometheus_client_is_imported_after_fork() -> None:
    script = "import sys, api.__main__; sys.exit('prometheus_client' in sys.modules)"

    done = run_python("-c", script)

    assert done.returncode == 0
