"""The jars of search servers: only files with the hashes of the recipe are used."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.jars import ROOT, check_hashes

HASHES = sorted((ROOT / "dev").glob("**/jars.sha256"))


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """A folder of two jars, beside their hashes."""
    folder = tmp_path / "lib"
    folder.mkdir()
    for name in ("a.jar", "b.jar"):
        (folder / name).write_bytes(name.encode())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())]
    (tmp_path / "jars.sha256").write_text("".join(lines))
    return folder


def test_the_files_of_the_recipe_are_accepted(lib: Path, tmp_path: Path) -> None:
    check_hashes(lib, tmp_path / "jars.sha256")


@pytest.mark.parametrize(
    "change",
    [
        lambda lib: (lib / "b.jar").write_bytes(b"changed"),
        lambda lib: (lib / "b.jar").unlink(),
        lambda lib: (lib / "a.jar").rename(lib / "b.jar"),
        lambda lib: (lib / "c.jar").touch(),
    ],
    ids=["changed", "missing", "renamed", "additional"],
)
def test_other_files_are_named(lib: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    change(lib)

    with pytest.raises(RuntimeError, match=r"other files than in .*jars\.sha256: .*[abc]\.jar"):
        check_hashes(lib, tmp_path / "jars.sha256")


@pytest.mark.parametrize("hashes", HASHES, ids=lambda path: path.parent.name)
def test_every_recipe_has_hashes_of_its_version(hashes: Path) -> None:
    name = hashes.parent.name
    version = (hashes.parent / "pom.xml").read_text().partition(f"<{name}.version>")[2].partition("<")[0]

    assert f"  {name.partition('-')[0]}-{version}.jar\n" in hashes.read_text()


def test_every_recipe_has_hashes() -> None:
    recipes = {path.parent for path in (ROOT / "dev").glob("**/pom.xml")}

    assert recipes == {path.parent for path in HASHES}
