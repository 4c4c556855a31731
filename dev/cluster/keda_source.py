"""KEDA's source with its Redis scalers alone.

The other seventy bring the clients of every cloud, queue and database: six times as much to compile, for nothing that
is looked at here. What scales, and what answers the autoscaler, is left as it is.
"""

import re
import shutil
from pathlib import Path

SCALERS = Path("pkg/scalers")
KEPT = {"scaler.go", "redis_scaler.go", "redis_streams_scaler.go"}
# Where a trigger's name leads to its scaler.
BUILDER = Path("pkg/scaling/scalers_builder.go")
OTHER_CASE = re.compile(r'\tcase "(?!redis)[^\n]*:\n\t\treturn scalers\.New[^\n]*\n(?:\t//[^\n]*\n)?')
# What the kept scalers use of files that are left out.
SHARED = """package scalers

const (
	externalMetricType = "External"
	stringEnable       = "enable"
	stringDisable      = "disable"
)
"""
LEFT_OUT = ("*_test.go", "tests", "images", "schema")


def copy_with_redis_alone(module: Path, folder: Path) -> None:
    """Copy KEDA's module, and leave out of the copy what scales by anything else."""
    shutil.rmtree(folder, ignore_errors=True)
    # Go's own copy may not be written to; this one may.
    shutil.copytree(module, folder, ignore=shutil.ignore_patterns(*LEFT_OUT), copy_function=shutil.copyfile)
    for path in [folder, *folder.rglob("*/")]:
        path.chmod(0o755)
    for path in (folder / SCALERS).glob("*.go"):
        if path.name not in KEPT:
            path.unlink()
    (folder / SCALERS / "shared.go").write_text(SHARED)
    builder = folder / BUILDER
    builder.write_text(OTHER_CASE.sub("", builder.read_text()))
