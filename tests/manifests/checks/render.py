"""Overlays as `kubectl apply` receives them, with the components that an operator may choose."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
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
# Autoscalers of the workers, of which an overlay has at most one.
SCALERS = ((), ("keda",), ("hpa-cpu",))
LAST = "api-keys"
# In place of `eck`: a deployment has one index server.
OTHER_SERVERS = {"opensearch", "amazon-opensearch"}


class RenderFailed(Exception):
    """kustomize cannot render an overlay; the text is its error."""


@dataclass(frozen=True, slots=True)
class Combination:
    """An overlay, and the components that replace its own."""

    overlay: str
    components: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.overlay if self.components is None else "+".join((self.overlay, *self.components))


Rendered = Mapping[Combination, Sequence[Object]]
DEV = Combination("dev")
PROD = Combination("prod")
# All components that one deployment may have.
FULL = Combination("prod", ("keda", "eck", "gateway", "ingress", "prometheus", "real-ip", "api-keys"))


def overlays() -> list[str]:
    """Return the names of the overlays."""
    return sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))


def extras() -> list[str]:
    """Return the components that work with any autoscaler; LAST is the last one."""
    scalers = {name for names in SCALERS for name in names}
    components = {path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml")} - scalers
    return sorted(components, key=lambda name: (name == LAST, name))


def combinations() -> Iterator[Combination]:
    """Yield each overlay unchanged, with each component, with all components, and with one autoscaler or both."""
    for overlay in overlays():
        yield Combination(overlay)
        # An operator adds one to an overlay that already has the other.
        yield Combination(overlay, ("keda", "hpa-cpu"))
        yield Combination(overlay, ("hpa-cpu", "keda"))
        for scaler, others in product(SCALERS, [(), tuple(name for name in extras() if name not in OTHER_SERVERS)]):
            yield Combination(overlay, scaler + others)
        for name in extras():
            yield Combination(overlay, (name,))


@cache
def renderer() -> Sequence[str]:
    """Return the command that renders a folder: kubectl, else a kustomize that Go builds. Raises MissingTool."""
    if kubectl := shutil.which("kubectl"):
        return (kubectl, "kustomize")
    try:
        return (str(build(KUSTOMIZE)), "build")
    except MissingTool as error:
        raise MissingTool(f"neither kubectl nor {error}") from error


def render(combination: Combination, *, manifests: Path = MANIFESTS) -> list[Object]:
    """Return the objects of an overlay. Raises RenderFailed."""
    with TemporaryDirectory() as work:
        shutil.copytree(manifests, Path(work) / "k8s")
        shutil.copytree(ROOT / "proxy", Path(work) / "proxy")
        folder = Path(work) / "k8s" / "overlays" / combination.overlay
        if combination.components is not None:
            kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
            kustomization["components"] = [f"../../components/{name}" for name in combination.components]
            (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        command = [*renderer(), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": work})
    # kustomize warns about deprecated fields.
    if done.returncode or done.stderr:
        raise RenderFailed(done.stderr.strip())
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]
