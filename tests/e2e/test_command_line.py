"""`match` and the examples of its pages against a real stack."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from match_cli.exits import Exit
from support.match_command import MatchCommand, blocks
from support.waiting import wait_until

WITHIN_S = 120
IMAGES = 100


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of many small images."""
    folder = tmp_path / "many"
    folder.mkdir()
    gradient = Image.radial_gradient("L").resize((96, 96))
    for number in range(IMAGES):
        gradient.rotate(number).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def ended_tasks(stack: Any) -> Callable[[], float]:
    """Return a function that counts the tasks that have ended so far."""

    def count() -> float:
        lines = stack.call("GET", "/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("match_tasks_ended_total"))

    return count


def test_an_interrupted_add_continues(
    stack: Any, match: MatchCommand, many: Path, ended_tasks: Callable[[], float]
) -> None:
    before = ended_tasks()
    command = ["add", str(many), "--jobs", "1", "--json"]

    for end, least in ((signal.SIGKILL, 1), (signal.SIGINT, IMAGES // 3)):
        process = match.start(*command)
        wait_until(lambda least=least: stack.ok("GET", "/count")[0] >= least, "some images are stored")
        process.send_signal(end)
        process.communicate(timeout=WITHIN_S)
        # It may have stored the last image before the signal arrives.
        assert process.returncode in {-signal.SIGKILL, Exit.INTERRUPTED, Exit.OK}
    last = match(*command)

    assert (last.code, last.json["pending"]) == (0, 0)
    assert sorted(stack.ok("GET", "/list", params={"limit": "1000"})) == sorted(str(path) for path in many.iterdir())
    # Each image had exactly one task.
    wait_until(lambda: ended_tasks() - before == IMAGES, "the metrics have all tasks")


def test_a_folder_is_added_searched_and_compared(match: MatchCommand) -> None:
    match.run("match add ~/Photos")
    shutil.copy("cropped.jpg", match.home / "Photos" / "again.jpg")
    match.run("match add ~/Photos")

    best = match.run("match search cropped.jpg --json").json["matches"]
    groups = match.run("match duplicates --json").json
    match.run("match duplicates --html out.html")

    originals = [str(match.home / "Photos" / name) for name in ("again.jpg", "coffee.jpg")]
    assert [result["filepath"] for result in best] == originals
    assert groups["filepaths"] == originals
    assert Path("out.html").read_text().count("<img") == 2


def test_collections_have_images_and_journals_of_their_own(match: MatchCommand) -> None:
    coffee = match.home / "Photos" / "coffee.jpg"
    match.run(f"match add {coffee}")
    created = match.run("match collections put museum --max-images 1 --json").json

    added = match.run(f"match add {coffee} --collection museum --json").json
    full = match("add", match.home / "Photos" / "moose.jpg", "--collection", "museum", "--json")
    listed = match.run("match list --collection museum").out
    deleted = match.run("match collections delete museum --yes --json").json
    wait_until(lambda: match.run(f"match tasks {deleted['id']} --json").json["state"] == "succeeded", "it is deleted")

    assert created == {"name": "museum", "images": 0, "max_images": 1}
    assert (added["stored"], listed) == (1, f"{coffee}\n")
    assert full.json["failures"] == {"quota_exceeded": 1}
    assert match.run("match list").out == f"{coffee}\n"


def test_the_program_is_installed() -> None:
    assert (Path(sys.executable).parent / "match").exists()


@pytest.mark.usefixtures("match")
def test_the_examples_of_the_client_work(stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for block in blocks("client.md", "python"):
        exec(block.replace("http://127.0.0.1:8888", stack.url), {})  # noqa: S102 - the page's own examples
        outputs.append(capsys.readouterr().out)

    assert outputs[0].split()[:2] == ["100.0", "cats/chelsea.jpg"]
    assert outputs[1] == "100.0\n"
    assert "shop/missing.jpg fail unreadable_file" in outputs[2]
    assert outputs[3].splitlines()[:2] == ["import/coffee.jpg album-1", "import/rocket.jpg album-1"]
    assert "2 of 2 done" in outputs[3]
    assert outputs[4].splitlines()[:3] == ["1 False", "1", "451"]
    assert outputs[5].splitlines()[0] == "cats/chelsea.jpg 1 None"
    assert outputs[6] == "cats/chelsea.jpg {'album': 'pets'}\n"
    assert outputs[7] == "not_an_image\nunknown_filepath filepath\n"
    assert outputs[8] == "401\n"


def test_the_examples_of_the_command_line_work(stack: Any, match: MatchCommand, image_server: str) -> None:
    Path("more/deep").mkdir(parents=True)
    shutil.copy("rocket.jpg", "more/deep/rocket.png")
    shutil.copy("chelsea.jpg", "holiday.jpg")
    os.utime("holiday.jpg", (0, 0))
    Path("list.csv").write_text(f"url,album\n{image_server}/coffee.jpg,food\n")
    lines = [line for block in blocks("command-line.md", "sh") for line in block.splitlines()]

    for line in lines:
        match.run(line.replace("https://images.example.org/a.jpg", f"{image_server}/moose.jpg"))

    names = stack.ok("GET", "/list", params={"limit": "1000"})
    assert len(lines) > 20
    assert str(match.home / "Photos" / "coffee.jpg") in names
    assert str(match.home / "Photos" / "rocket.jpg") not in names
