"""The images that an add names: files, folders, patterns, URLs and lists of them."""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from match_cli.exits import UsageProblem
from match_client.sources import is_url

# File names in folders; a file that is named itself may have any. docs/formats.md lists the formats.
SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("apng", "avif", "bmp", "dib", "gif", "heic", "heif", "jfif", "jpe", "jpeg"),
        *("jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
STDIN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An image to add: its path or URL, its name in the service and its metadata.

    `version` changes when the image may have changed; `size` is the approximate number of bytes to send.
    """

    source: str
    filepath: str
    version: str
    size: int
    metadata: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file or folder that cannot be sent, and the reason."""

    source: str
    code: str
    reason: str


Discovered = Source | Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How files are named: by the path within `relative_to`, else by the whole path, after `prefix`."""

    relative_to: Path | None = None
    prefix: str = ""

    def name(self, path: str) -> str:
        """Return the name of a file."""
        if self.relative_to is None:
            return self.prefix + Path(path).as_posix()
        try:
            return self.prefix + Path(path).relative_to(self.relative_to).as_posix()
        except ValueError:
            raise UsageProblem(f"{path} is not in {self.relative_to}") from None


def absolute(path: str) -> str:
    """Return the absolute path; symbolic links stay, so that a name does not depend on them."""
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolve() would follow links


def expand(arguments: Iterable[str], stdin: Iterable[str]) -> Iterator[str]:
    """Yield paths and URLs: patterns are expanded, and `-` is replaced by the lines of `stdin`.

    A pattern without a match is yielded unchanged, as shells do: no file has this name.
    """
    for argument in arguments:
        if argument == STDIN:
            yield from (line.strip() for line in stdin if line.strip())
        elif not is_url(argument) and glob.has_magic(argument) and not Path(argument).exists():
            matches = glob.iglob(str(Path(argument).expanduser()), recursive=True)  # noqa: PTH207 - also absolute ones
            yield next(matches, argument)
            yield from matches
        else:
            yield argument


def discover(names: Iterable[str], naming: Naming) -> Iterator[Discovered]:
    """Yield the images of paths and URLs; folders are walked, and their hidden files left out."""
    for name in names:
        if is_url(name):
            yield Source(source=name, filepath=naming.prefix + name, version=name, size=len(name))
            continue
        path = absolute(name)
        if Path(path).is_dir():
            yield from _folder(path, naming)
        else:
            yield file(path, naming.name(path))


def _folder(path: str, naming: Naming) -> Iterator[Discovered]:
    """Yield the images of a folder; links to folders are not followed."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from _folder(entry.path, naming)
                elif Path(entry.name).suffix.lower() in SUFFIXES and _is_file(entry):
                    yield file(entry.path, naming.name(entry.path))
    except OSError as error:
        yield Unreadable(source=path, code="unreadable_folder", reason=error.strerror or str(error))


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a file, or a link that cannot be followed; one to a missing file is neither."""
    try:
        return entry.is_file()
    except OSError:
        return True


def file(path: str, filepath: str, metadata: Mapping[str, object] | None = None, *, version: str = "") -> Discovered:
    """Return a file as it is now; `version` is added to that of the file."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="replace")
        return Unreadable(source=shown, code="bad_filename", reason="the name is not valid UTF-8")
    try:
        stat = Path(path).stat()
    except OSError as error:
        return Unreadable(source=path, code="unreadable_file", reason=error.strerror or str(error))
    return Source(
        source=path,
        filepath=filepath,
        version=f"{stat.st_size} {stat.st_mtime_ns} {version}".rstrip(),
        size=stat.st_size,
        metadata=metadata,
    )


def is_unchanged(image: Source) -> bool:
    """Return whether a file of an earlier run is the same now; a URL always is."""
    if is_url(image.source):
        return True
    now = file(image.source, image.filepath)
    return isinstance(now, Source) and f"{image.version} ".startswith(f"{now.version} ")
