"""The split of the quality benchmark: no image that trained centres or chose cutoffs is measured."""

import hashlib
import sys
from pathlib import Path

import pytest

from support.images import noise

ROOT = Path(__file__).resolve().parents[2]
TRAINED = (ROOT / "common" / "images" / "local_features" / "trained.txt").read_text(encoding="ascii").split()

sys.path.insert(0, str(ROOT / "benchmarks"))

from parts import split  # noqa: E402 - the benchmarks are scripts, not a package
from parts.contents import DRAWN  # noqa: E402 - the same
from parts.edits import EDITS, GROUPS  # noqa: E402 - the same

from dev.train_centres import PACKAGES  # noqa: E402 - the same


def test_measured_and_tuned_images_are_disjoint(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.jpg").write_bytes(noise(number, kind="JPEG"))

    paths = split.photographs(tmp_path)

    assert set(split.measured(paths)) | set(split.tuned(paths)) == set(paths)
    assert not set(split.measured(paths)) & set(split.tuned(paths))


def test_image_that_trained_centres_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(1, kind="JPEG")
    (tmp_path / "1.jpg").write_bytes(image)
    listed = tmp_path / "trained.txt"
    listed.write_text("\n".join([*TRAINED, hashlib.sha256(image).hexdigest()]))
    monkeypatch.setattr(split, "_TRAINED", listed)

    with pytest.raises(ValueError, match="trained the centres"):
        split.photographs(tmp_path)


def test_photographs_that_trained_centres_are_listed() -> None:
    assert len(TRAINED) == len(set(TRAINED)) > 100
    assert all(len(digest) == 64 for digest in TRAINED)


def test_real_photographs_did_not_train_centres(real_photos: list[Path]) -> None:
    assert split.photographs(real_photos[0].parent)


def test_measured_packages_did_not_train_centres() -> None:
    documented = (ROOT / "benchmarks" / "quality.py").read_text(encoding="utf-8")

    assert [package for package in PACKAGES if package in documented] == []


def test_benchmark_has_80_edits_in_7_groups() -> None:
    assert (len(EDITS) >= 80, len(GROUPS), len({edit.name for edit in EDITS})) == (True, 7, len(EDITS))


def test_drawn_content_depends_only_on_its_seed() -> None:
    for draw in DRAWN.values():
        assert draw(3).tobytes() == draw(3).tobytes() != draw(4).tobytes()
