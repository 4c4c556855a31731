"""Tools are built once, and what cannot be built is told in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checks import tools
from checks.render import renderer
from checks.tools import COMPOSE, KEDA, KUBE_SCORE, MissingTool, build, fetch
from dev import go_builds


@pytest.fixture
def no_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache on a machine without Go."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(go_builds, "GO_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "match-tools"


@pytest.mark.parametrize(("get", "wanted"), [(build, KUBE_SCORE), (build, COMPOSE), (fetch, KEDA)])
@pytest.mark.usefixtures("no_go")
def test_without_go_a_tool_that_is_not_there_yet_is_missed_by_name(get: Callable[[Any], Path], wanted: Any) -> None:
    with pytest.raises(MissingTool, match=r"^[\w./-]+: Go builds it, and there is no go on PATH$"):
        get(wanted)


def test_without_go_a_tool_that_is_there_is_used(no_go: Path) -> None:
    there = no_go / "bin" / f"{KUBE_SCORE.name}-{KUBE_SCORE.version}"
    there.parent.mkdir(parents=True)
    there.touch()

    assert build(KUBE_SCORE) == there


@pytest.mark.usefixtures("no_go")
def test_without_kubectl_and_go_nothing_can_be_rendered() -> None:
    renderer.cache_clear()

    with pytest.raises(MissingTool, match=r"^neither kubectl nor kustomize"):
        renderer()


def test_a_source_that_changes_is_built_anew(tmp_path: Path) -> None:
    source = tools.Source("compose", tmp_path)
    (tmp_path / "main.go").write_text("package main")
    before = source.version

    (tmp_path / "main.go").write_text("package main\n\nfunc main() {}")

    assert source.version != before
