"""Go, and where we keep what it builds for us: programs that the tests need, once a machine."""

import os
import shutil
from pathlib import Path

# Where Go's own installer puts it; it is often on nobody's PATH.
GO_HOME = "/usr/local/go/bin"


def find_go() -> str | None:
    """Return Go's command, None where there is none."""
    return shutil.which("go") or shutil.which("go", path=GO_HOME)


def kept(name: str) -> Path:
    """Return our folder of that name under `$XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
