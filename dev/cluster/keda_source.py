"""KEDA's source with only its Redis scalers.

The other seventy scalers import the clients of all clouds, queues and databases: six times as much code to compile, and
no test uses it. Operator and metrics server are unchanged.
"""

import re
import shutil
from pathlib import Path

SCALERS = Path("pkg/scalers")
KEPT = {"scaler.go", "redis_scaler.go", "redis_streams_scaler.go"}
# The file with the scaler of each trigger type.
BUILDER = Path("pkg/scaling/scalers_builder.go")
OTHER_CASE = re.compile(r'\tcase "(?!redis)[^\n]*:\n\t\treturn scalers\.New[^\n]*\n(?:\t//[^\n]*\n)?')
# Constants of removed files that the Redis scalers use.
SHARED = """package scalers

const (
	externalMetricType = "External"
	stringEnable       = "enable"
	stringDisable      = "disable"
)
"""
EXCLUDED = ("*_test.go", "tests", "images", "schema")


def copy_with_redis_only(module: Path, folder: Path) -> None:
    """Copy KEDA's module without the other scalers."""
    shutil.rmtree(folder, ignore_errors=True)
    # Go's module cache is read-only; the copy is not.
    shutil.copytree(module, folder, ignore=shutil.ignore_patterns(*EXCLUDED), copy_function=shutil.copyfile)
    for path in [folder, *folder.rglob("*/")]:
        path.chmod(0o755)
    for path in (folder / SCALERS).glob("*.go"):
        if path.name not in KEPT:
            path.unlink()
    (folder / SCALERS / "shared.go").write_text(SHARED)
    builder = folder / BUILDER
    builder.write_text(OTHER_CASE.sub("", builder.read_text()))
