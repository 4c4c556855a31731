"""The commands of our pages, as a reader runs them in a shell."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
# The address of `make dev` in the pages.
DOCUMENTED_URL = "http://127.0.0.1:8888"


@dataclass(frozen=True)
class Block:
    """A block of code of a page: its language and its text."""

    language: str
    text: str

    @property
    def first(self) -> str:
        """The first command."""
        return self.text.partition("\n")[0]


def code_blocks(page: str) -> list[Block]:
    """Return the blocks of code of a page, in their order. `page` is relative to the project's folder."""
    tokens = MarkdownIt("commonmark").parse((ROOT / page).read_text())
    return [Block(token.info, token.content) for token in tokens if token.type == "fence"]


def clone_of_links(folder: Path, *, data: Path) -> Path:
    """Make a folder that looks like a clone, and whose files are links to this one; `data` is its `.match`."""
    clone = folder / "clone"
    clone.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith(".") or path.name == ".venv":
            (clone / path.name).symlink_to(path)
    (clone / ".match").symlink_to(data)
    return clone


def run_block(text: str, *, folder: Path, url: str, environment: Mapping[str, str]) -> str:
    """Run a block in a shell that ends at the first failing command, and return both of its outputs."""
    bash = shutil.which("bash") or "/bin/bash"
    script = f"set -euo pipefail\n{text.replace(DOCUMENTED_URL, url)}"
    done = subprocess.run(
        [bash, "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}"
    return done.stdout
