"""Overlays as `kubectl apply` would see them, with components as an operator might choose them."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from checks.objects import Object
from checks.tools import KUSTOMIZE, MissingTool, build

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "k8s"
# Who scales the workers: one of them, or nobody.
SCALERS = ((), ("keda",), ("hpa-cpu",))
LAST = "api-keys"


class Refused(Exception):
    """kustomize cannot render it; the text is kustomize's."""


@dataclass(frozen=True, slots=True)
class Combination:
    """An overlay, and the components that it is rendered with in place of its own."""

    overlay: str
    components: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.overlay if self.components is None else "+".join((self.overlay, *self.components))


def overlays() -> list[str]:
    """Return the names of the overlays."""
    return sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))


def extras() -> list[str]:
    """Return the components that go with any scaler; the one that wants to be the last is."""
    scalers = {name for names in SCALERS for name in names}
    there = {path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml")} - scalers
    return sorted(there, key=lambda name: (name == LAST, name))


def combinations() -> Iterator[Combination]:
    """Return each overlay as it is, and with each component alone, with all, and with each scaler or both."""
    alone = [(name,) for name in extras()]
    for overlay in overlays():
        yield Combination(overlay)
        # As where one is added to an overlay that has the other one already.
        yield Combination(overlay, ("keda", "hpa-cpu"))
        yield Combination(overlay, ("hpa-cpu", "keda"))
        for scaler, others in product(SCALERS, [(), tuple(extras())]):
            yield Combination(overlay, scaler + others)
        for others in alone:
            yield Combination(overlay, others)


@cache
def renderer() -> Sequence[str]:
    """Return the command that renders a folder: kubectl's kustomize, else one that Go builds. Raises MissingTool."""
    if kubectl := shutil.which("kubectl"):
        return (kubectl, "kustomize")
    try:
        return (str(build(KUSTOMIZE)), "build")
    except MissingTool as error:
        raise MissingTool(f"neither kubectl nor {error}") from error


def render(combination: Combination, *, manifests: Path = MANIFESTS) -> list[Object]:
    """Return the objects of an overlay. Raises Refused."""
    with TemporaryDirectory() as work:
        shutil.copytree(manifests, Path(work) / "k8s")
        shutil.copytree(ROOT / "proxy", Path(work) / "proxy")
        folder = Path(work) / "k8s" / "overlays" / combination.overlay
        if combination.components is not None:
            said = yaml.safe_load((folder / "kustomization.yaml").read_text())
            said["components"] = [f"../../components/{name}" for name in combination.components]
            (folder / "kustomization.yaml").write_text(yaml.safe_dump(said))
        command = [*renderer(), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": work})
    # A kustomization that uses what kustomize is about to drop is told as a warning.
    if done.returncode or done.stderr:
        raise Refused(done.stderr.strip())
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]
