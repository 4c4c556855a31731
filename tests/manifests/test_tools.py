"""Tools are built once; an error names the missing one in one line."""

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


@pytest.mark.parametrize(("get", "tool"), [(build, KUBE_SCORE), (build, COMPOSE), (fetch, KEDA)])
@pytest.mark.usefixtures("no_go")
def test_an_unbuilt_tool_needs_go(get: Callable[[Any], Path], tool: Any) -> None:
    with pytest.raises(MissingTool, match=r"^[\w./-]+: Go builds it, and Go is not installed$"):
        get(tool)


def test_a_built_tool_needs_no_go(no_go: Path) -> None:
    built = no_go / "bin" / f"{KUBE_SCORE.name}-{KUBE_SCORE.version}"
    built.parent.mkdir(parents=True)
    built.touch()

    assert build(KUBE_SCORE) == built


@pytest.mark.usefixtures("no_go")
def test_rendering_needs_kubectl_or_go() -> None:
    renderer.cache_clear()

    with pytest.raises(MissingTool, match=r"^neither kubectl nor kustomize"):
        renderer()


def test_a_changed_source_is_a_new_version(tmp_path: Path) -> None:
    source = tools.Source("compose", tmp_path)
    (tmp_path / "main.go").write_text("package main")
    before = source.version

    (tmp_path / "main.go").write_text("package main\n\nfunc main() {}")

    assert source.version != before
