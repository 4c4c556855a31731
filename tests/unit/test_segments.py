"""Files of segments: written whole, and read only if complete and undamaged."""

from pathlib import Path

import numpy as np
import pytest

from common.images.signature import LENGTH
from common.store.sqlite import segments
from common.store.sqlite.blocks import pack, unpack
from common.store.sqlite.segments import Segment, UnusableSegmentError, open_segment, remove_segments, write_segment

ROWS = np.random.default_rng(1).integers(-2, 3, (7, LENGTH)).astype(np.int8)
IDS = np.array([1, 1, 4, 5, 9, 2**40, 2**41], np.int64)
GONE = np.array([2, 2**42], np.int64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_segment(tmp_path, Segment("one", pack(IDS, ROWS), GONE))
    return tmp_path / "one.segment"


def test_segment_is_read_as_written(path: Path) -> None:
    segment = open_segment(path.parent, "one")

    assert np.array_equal(unpack(segment.block), ROWS)
    assert segment.block.keys.tolist() == IDS.tolist()
    assert segment.gone.tolist() == GONE.tolist()
    assert segment.touched.tolist() == [1, 2, 4, 5, 9, 2**40, 2**41, 2**42]


def test_segment_without_signatures_is_read(tmp_path: Path) -> None:
    write_segment(tmp_path, Segment("none", pack(IDS[:0], ROWS[:0]), GONE[:0]))

    assert len(open_segment(tmp_path, "none").block) == 0


def test_signatures_begin_at_whole_cache_lines(path: Path) -> None:
    assert open_segment(path.parent, "one").block.signs.ctypes.data % 64 == 0


@pytest.mark.parametrize("offset", [0, 8, 12, 16, 25, 4_100, 4_600, -1])
def test_damaged_segment_is_unusable(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)

    with pytest.raises(UnusableSegmentError):
        open_segment(path.parent, "one")


@pytest.mark.parametrize("kept", [0, 7, 19, 600, 4_095, 4_096, 4_500, -1])
def test_truncated_segment_is_unusable(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(UnusableSegmentError):
        open_segment(path.parent, "one")


def test_file_of_another_segment_is_unusable(path: Path) -> None:
    path.rename(path.with_name("two.segment"))

    with pytest.raises(UnusableSegmentError, match="another segment"):
        open_segment(path.parent, "two")
    with pytest.raises(UnusableSegmentError):
        open_segment(path.parent, "one")


def test_segment_of_another_format_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "FORMAT", segments.FORMAT + 1)
    write_segment(tmp_path, Segment("one", pack(IDS, ROWS), GONE))
    monkeypatch.undo()

    with pytest.raises(UnusableSegmentError, match="version"):
        open_segment(tmp_path, "one")


def test_only_unlisted_files_are_removed(path: Path) -> None:
    for name in ("two.segment", "three.tmp", "lock"):
        path.with_name(name).write_bytes(b"")
    mapped = open_segment(path.parent, "one")

    remove_segments(path.parent, keep=["one"])
    left = sorted(file.name for file in path.parent.iterdir())
    remove_segments(path.parent, keep=[])

    assert left == ["lock", "one.segment"]
    assert not path.exists()
    assert np.array_equal(unpack(mapped.block), ROWS)
