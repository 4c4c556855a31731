"""Deletes the images of files that vanished from a folder."""

import os
from collections import Counter
from pathlib import Path

from match_cli import output
from match_cli.journal import START, Journal
from match_client import Match

PRUNED_PER_REQUEST = 1000


class Prune:
    """Deletes images from a service and from its journal.

    A file below an empty folder counts as not readable, and not as deleted: a share that is not mounted leaves its
    mount point as an empty folder.
    """

    def __init__(self, match: Match, journal: Journal, *, collection: str | None) -> None:
        self._match = match
        self._journal = journal
        self._collection = collection
        self._kept: Counter[Path] = Counter()

    def folder(self, folder: str) -> int:
        """Delete the images whose files vanished from the folder, and return their number."""
        pruned, after = 0, START
        while rows := self._journal.unseen(folder.rstrip(os.sep) + os.sep, PRUNED_PER_REQUEST, after=after):
            after = rows[-1]
            vanished = [row for row in rows if self._is_deleted(row[0])]
            # The name of another file of this run stays.
            names = [filepath for _, filepath in vanished if not self._journal.has_name(filepath)]
            self._match.delete(names, collection=self._collection)
            self._journal.forget(vanished)
            pruned += len(names)
        return pruned

    def report(self) -> None:
        """Print which images were kept."""
        for folder, number in self._kept.items():
            output.message(
                f"not pruned: {number} images of {folder}, which is empty now, like a share that is not mounted; "
                "delete the folder, or use match delete --prefix"
            )

    def _is_deleted(self, source: str) -> bool:
        if os.path.lexists(source):
            return False
        folder = next(parent for parent in Path(source).parents if parent.is_dir())
        if folder in self._kept or _is_empty(folder):
            self._kept[folder] += 1
            return False
        return True


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return True
