"""`python -m dev.lua_lint`: lints every Lua script, as Redis gets it, with luacheck where that is installed."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common.redis.scripts import read

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = [
    "--no-color",
    "-q",
    "--std=lua51",
    "--max-line-length=120",
    "--ignore=431",  # parameters of included functions may be called as the script's arguments are
    "--read-globals=redis",
    "--read-globals=cjson",
    "--read-globals=KEYS",
    "--read-globals=ARGV",
]
# A script may need some functions of an included file only.
MAY_BE_UNUSED = ("-- luacheck: push ignore 211\n", "-- luacheck: pop\n")


def main() -> int:
    """Lint; return the exit status."""
    luacheck = shutil.which("luacheck")
    if luacheck is None:
        print("luacheck is not installed (Debian's package lua-check): the Lua scripts are not linted", file=sys.stderr)
        return 0
    paths = sorted((ROOT / "common").glob("*/lua/*.lua"))
    included = {name for path in paths for name in _includes(path)}
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            if path not in included:
                target = Path(folder) / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(read(path, around=MAY_BE_UNUSED), encoding="utf-8")
        return subprocess.run([luacheck, "common", *OPTIONS], cwd=folder, check=False).returncode


def _includes(path: Path) -> set[Path]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {(path.parent / line.split('"')[1]).resolve() for line in lines if line.startswith("--- @include")}


if __name__ == "__main__":
    sys.exit(main())
