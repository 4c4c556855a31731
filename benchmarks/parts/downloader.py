"""img2dataset, which downloads images to files: the CPU of one image more."""

import os
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from parts.pipelines import ROOT, WORKERS

PROGRAM = ROOT / ".cache" / "downloader" / "bin" / "img2dataset"
# As many downloads at once as in Match's workers.
THREADS = 32
FIRST = 400


def why_not() -> str | None:
    """Return why it cannot be measured, or None."""
    return None if PROGRAM.exists() else "img2dataset is not installed: `make .cache/downloader/.installed`"


def marginal_ms(urls: Sequence[str]) -> float:
    """Return the CPU milliseconds of each image beyond the first ones, with which the start of its processes counts."""
    few, many = _cpu_s(urls[:FIRST]), _cpu_s(urls)
    return (many - few) * 1000 / (len(urls) - FIRST)


def _cpu_s(urls: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        listed, images = Path(folder) / "urls.txt", Path(folder) / "images"
        listed.write_text("".join(f"{url}\n" for url in urls))
        before = _children_s()
        subprocess.run(  # noqa: S603 - a program of the benchmarks
            [PROGRAM, *options(listed, images, count=len(urls))],
            check=True,
            capture_output=True,
            env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"},
        )
        spent = _children_s() - before
        stored = sum(1 for _ in images.rglob("*.jpg"))
        assert stored == len(urls), f"img2dataset stored {stored} of {len(urls)} images"
        return spent


def options(listed: Path, images: Path, *, count: int) -> list[str]:
    """Return the options with the least work for so many images: neither decoding nor resizing."""
    named = {
        "url_list": listed,
        "input_format": "txt",
        "output_folder": images,
        "output_format": "files",
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "processes_count": WORKERS,
        "thread_count": THREADS,
        # One list for each process: img2dataset replaces a process after five, and its imports take seconds.
        "number_sample_per_shard": ceil(count / WORKERS),
    }
    return [f"--{name}={value}" for name, value in named.items()]


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
