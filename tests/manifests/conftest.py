"""Rendered manifests, and tools that are required in CI."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from checks.example import commit_manifests
from checks.render import Rendered, combinations, render
from checks.tools import MissingTool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def make() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run make as a shell would."""
    program = shutil.which("make") or "make"
    # Within `make test`, make would also print its folder.
    environment = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    return make


@pytest.fixture(scope="session")
def require(give_up: Callable[[str], NoReturn]) -> Callable[..., Any]:
    """Call a function that may need a missing tool; then the test is skipped with the reason, or fails in CI."""

    def require(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except MissingTool as missing:
            give_up(str(missing))

    return require


@pytest.fixture(scope="session")
def rendered(require: Callable[..., Any]) -> Rendered:
    """Every supported combination of overlay and components."""
    return {combination: require(render, combination) for combination in combinations()}


@pytest.fixture(scope="session")
def manifests_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a repository with the manifests at two versions."""
    return commit_manifests(tmp_path_factory.mktemp("repository"))
