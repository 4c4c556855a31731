"""The manifests as they would be applied, and tools that must be there in CI."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import pytest

from checks.objects import Object
from checks.render import Combination, combinations, render
from checks.tools import MissingTool


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
