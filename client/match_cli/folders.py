"""The folders of the command line's own files, after the XDG specification."""

import os
from collections.abc import Mapping
from pathlib import Path

NAME = "match"


def config_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the profiles."""
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / NAME


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the journals."""
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / NAME
