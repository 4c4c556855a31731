"""The README on a clean machine: a fresh clone, an environment of its own, and the commands in their order."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.ports import free_port
from support.pages import DOCUMENTED_URL, ROOT, code_blocks, run_block
from support.waiting import wait_until

# The first start installs everything.
READY_WITHIN_S = 1200
STOP_WITHIN_S = 180
pytestmark = pytest.mark.timeout(2 * READY_WITHIN_S)
# Those of Match itself choose another store, another Redis or another environment.
OF_MATCH = ("MATCH_", "ELASTICSEARCH_", "REDIS_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS", "PORT")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the last commit."""
    git = shutil.which("git") or "git"
    folder = tmp_path_factory.mktemp("clean") / "match"
    subprocess.run([git, "clone", "--quiet", f"file://{ROOT}", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def environment(clone: Path) -> dict[str, str]:
    """The environment of a new user with photographs in the home."""
    home = clone.parent / "home"
    for folder, name in (("Photos", "coffee.jpg"), ("Scans", "moose.jpg")):
        (home / folder).mkdir(parents=True)
        shutil.copy(ROOT / "examples" / "images" / name, home / folder)
    shutil.copy(ROOT / "examples" / "images" / "coffee.jpg", clone / "cropped.jpg")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_MATCH)}
    port = free_port()
    return kept | {
        "HOME": str(home),
        "PATH": f"{clone / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PORT": str(port),
        "FLOWER_PORT": str(free_port()),
        "MATCH_WORKER_METRICS_PORT": str(free_port()),
        "MATCH_URL": f"http://127.0.0.1:{port}",
    }


@pytest.fixture(scope="module")
def url(clone: Path, environment: dict[str, str]) -> Iterator[str]:
    """`make dev` in the clone, until it is ready."""
    make = shutil.which("make") or "make"
    output = clone.parent / "output"
    with output.open("w") as file:
        stack = subprocess.Popen(
            [make, "dev"], cwd=clone, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        wait_until(
            lambda: stack.poll() is not None or "\nready\n" in output.read_text(),
            "make dev is ready",
            within_s=READY_WITHIN_S,
        )
        assert stack.poll() is None, output.read_text()
        yield environment["MATCH_URL"]
        os.killpg(stack.pid, signal.SIGINT)
        stack.wait(STOP_WITHIN_S)


def test_the_readme_works_on_a_fresh_clone(clone: Path, url: str, environment: dict[str, str]) -> None:
    blocks = [block for block in code_blocks("README.md") if block.language in {"sh", "python"}]
    [python] = [block.text for block in blocks if block.language == "python"]
    (clone / "example.py").write_text(python.replace(DOCUMENTED_URL, url))
    # `make dev` runs, and the last block runs these tests.
    _, *shell, _ = [block.text for block in blocks if block.language == "sh"]
    commands = [*shell, ".venv/bin/python example.py"]

    outputs = [run_block(text, folder=clone, url=url, environment=environment) for text in commands]

    assert len(shell) == 3
    assert '"matched_by":"local_features"' in outputs[1].replace(" ", "")
    assert outputs[-1] == "cats/chelsea.jpg\n"
