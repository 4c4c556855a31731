"""Check prose and names: the covered folders, or the paths on the command line.

python -m dev.prose [PATH ...]
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dev.go_builds import BuildFailed
from dev.prose import lengths, names, vale
from dev.prose.extract import extract
from dev.prose.vale import ROOT, VALE, Finding

# The folders and files that are checked by `make lint`: all code, and all pages of Markdown.
COVERED = (
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "api",
    "benchmarks",
    "client",
    "common",
    "dev",
    "docs",
    "examples",
    "k8s",
    "requirements",
    "tests",
    "workers",
)
# Contains sentences and names that break the rules.
FIXTURES = Path("tests/unit/test_prose.py")
# Vale reads these itself.
NATIVE = {".lua", ".md"}


def files(paths: Sequence[str]) -> list[Path]:
    """Return the files that can be checked under `paths`, relative to the repository's root."""
    chosen = [ROOT / path for path in paths]
    under = [file for path in chosen for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    shown = [file.relative_to(ROOT) if file.is_relative_to(ROOT) else file for file in under]
    return [file for file in shown if file.suffix in {".py", *NATIVE} and file != FIXTURES]


def check_names(chosen: Sequence[Path]) -> Iterator[Finding]:
    """Yield the names to be replaced."""
    for path in chosen:
        if path.suffix == ".py":
            yield from names.check(str(path), (ROOT / path).read_text())


def check_lengths(chosen: Sequence[Path]) -> Iterator[Finding]:
    """Yield the paragraphs and table cells that are too long."""
    for path in chosen:
        if path.suffix == ".md":
            yield from lengths.check(str(path), (ROOT / path).read_text())


def check_prose(chosen: Sequence[Path]) -> Iterator[Finding]:
    """Yield the prose to be rewritten. Raises BuildFailed where vale is missing."""
    program = VALE.find() or _built()
    yield from vale.run(program, [str(path) for path in chosen if path.suffix in NATIVE], folder=ROOT)
    with TemporaryDirectory() as folder:
        texts = {f"{number}.txt": path for number, path in enumerate(chosen) if path.suffix == ".py"}
        for text, path in texts.items():
            (Path(folder) / text).write_text(extract((ROOT / path).read_text()))
        for finding in vale.run(program, list(texts), folder=Path(folder)):
            yield Finding(str(texts[finding.path]), finding.line, finding.message, finding.rule)


def _built() -> Path:
    print(f"building vale {VALE.version} with Go: some minutes, once …", file=sys.stderr, flush=True)
    return VALE.build()


def main() -> int:
    """Print the findings; return 1 if there are any, or in CI if vale is missing."""
    parser = argparse.ArgumentParser(prog="python -m dev.prose", description="Check prose and names.")
    parser.add_argument("path", nargs="*", default=COVERED, help="file or folder; default: the covered ones")
    chosen = files(parser.parse_args().path)
    findings = [*check_names(chosen), *check_lengths(chosen)]
    is_missing = False
    try:
        findings += check_prose(chosen)
    except BuildFailed as error:
        is_missing = True
        print(f"prose is not checked: {error}", file=sys.stderr)
    for finding in sorted(findings):
        print(f"{finding.path}:{finding.line}: {finding.message} [{finding.rule}]")
    if findings:
        print(f"{len(findings)} findings; docs/glossary.md has the rules", file=sys.stderr)
    return int(bool(findings) or (is_missing and os.environ.get("CI") == "true"))


if __name__ == "__main__":
    sys.exit(main())
