"""Vale, which checks prose by the rules in docs/style: the one on PATH, or one that Go builds here once."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.go_builds import GoProgram

ROOT = Path(__file__).resolve().parents[2]

VALE = GoProgram(
    name="vale",
    # Later versions require a commit of cascadia that the module proxy does not serve.
    version="3.20.0",
    package="github.com/vale-cli/vale/v3/cmd/vale",
    tag="v3.20.0",
    # About 130 s of one core that is not shared.
    timeout_s=600.0,
    # Its parsers of programming languages are written in C.
    needs_c=True,
)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A word or sentence that breaks a rule; `path` is as it was passed in."""

    path: str
    line: int
    message: str
    rule: str


def run(program: Path, paths: Sequence[str], *, folder: Path) -> list[Finding]:
    """Check the texts at `paths`, relative to `folder`, by our rules."""
    if not paths:
        return []
    command = [str(program), "--no-global", f"--config={ROOT / '.vale.ini'}", "--no-exit", "--output=JSON", *paths]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return sorted(
        Finding(path, alert["Line"], alert["Message"], alert["Check"])
        for path, alerts in json.loads(done.stdout).items()
        for alert in alerts
    )
