"""The manifests as they would be applied, and tools that must be there in CI."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from checks.objects import Object
from checks.render import Combination, combinations, render
from checks.tools import MissingTool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def make() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run make as a shell would."""
    program = shutil.which("make") or "make"
    # Within `make test` it would also tell which folder it is in.
    alone = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], cwd=ROOT, env=alone, capture_output=True, text=True, check=False)

    return make


@pytest.fixture(scope="session")
def needed(give_up: Callable[[str], NoReturn]) -> Callable[..., Any]:
    """Call what may miss a tool; what is missing is told in one line."""

    def needed(use: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return use(*arguments)
        except MissingTool as missing:
            give_up(str(missing))

    return needed


@pytest.fixture(scope="session")
def rendered(needed: Callable[..., Any]) -> Mapping[Combination, Sequence[Object]]:
    """Every combination of overlay and components that we stand for."""
    return {combination: needed(render, combination) for combination in combinations()}
