"""The example of an overlay outside the clone, rendered from a repository of its own."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from checks.objects import Object
from checks.render import ROOT, renderer

EXAMPLE = ROOT / "examples" / "kubernetes"
_URL = re.compile(r"https://\S+\.git\b")


def commit_manifests(folder: Path) -> str:
    """Make a repository of the manifests in `folder`: v0.1.0, and v0.2.0 with newer images. Return its URL."""
    for name in ("k8s", "proxy"):
        shutil.copytree(ROOT / name, folder / name)
    _git(folder, "init", "--quiet")
    _commit(folder, "v0.1.0")
    prod = folder / "k8s" / "overlays" / "prod" / "kustomization.yaml"
    prod.write_text(re.sub(r"newTag: [\d.]+", "newTag: 0.2.0", prod.read_text()))
    _commit(folder, "v0.2.0")
    return f"file://{folder}"


def render_example(
    folder: Path, *, url: str, version: str = "v0.1.0", files: Mapping[str, str] | None = None
) -> list[Object]:
    """Copy the example into `folder`, add or extend files, and return its objects at a version of the repository.

    A kustomization in `files` extends that of the example: lists are joined. Raises MissingTool.
    """
    shutil.copytree(EXAMPLE, folder)
    for name, text in (files or {}).items():
        (folder / name).write_text(_extended(folder / name, text) if name == "kustomization.yaml" else text)
    kustomization = folder / "kustomization.yaml"
    kustomization.write_text(_URL.sub(url, kustomization.read_text()).replace("ref=v0.1.0", f"ref={version}"))
    environment = {**os.environ, "HOME": str(folder.parent), "TMPDIR": str(folder.parent)}
    done = subprocess.run(
        [*renderer(), str(folder)], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def _extended(file: Path, text: str) -> str:
    merged = yaml.safe_load(file.read_text())
    for key, items in yaml.safe_load(text).items():
        merged[key] = [*merged.get(key, []), *items]
    return yaml.safe_dump(merged)


def _commit(folder: Path, tag: str) -> None:
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "--message", tag)
    _git(folder, "tag", tag)


def _git(folder: Path, *arguments: str) -> None:
    program = shutil.which("git") or "git"
    author = ["-c", "user.name=Example", "-c", "user.email=team@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run([program, *author, *arguments], cwd=folder, check=True, capture_output=True)
