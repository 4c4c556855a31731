"""Python programs that run to their end."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 280
NO_SETTINGS: Mapping[str, str] = {}


def run_python(*arguments: str, environment: Mapping[str, str] = NO_SETTINGS) -> "subprocess.CompletedProcess[str]":
    """Run Python with these arguments, and with `environment` added to the tests' own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
