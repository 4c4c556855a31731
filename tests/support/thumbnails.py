"""Thumbnails in memory."""

from collections.abc import Sequence

from common.errors import StoreUnavailable
from common.store.thumbnails import Owner, Thumbnail


class MemoryThumbnails:
    """Thumbnails in memory; `away` makes them unavailable."""

    def __init__(self) -> None:
        self.kept: dict[int, Thumbnail] = {}
        self.away = False

    def put(self, thumbnails: Sequence[Thumbnail]) -> None:
        self._check()
        self.kept |= {each.owner.seq: each for each in thumbnails}

    def get(self, seq: int) -> bytes | None:
        self._check()
        return self.kept[seq].webp if seq in self.kept else None

    def owners_after(self, seq: int, *, limit: int) -> list[Owner]:
        self._check()
        return [each.owner for number, each in sorted(self.kept.items()) if number > seq][:limit]

    def delete(self, seqs: Sequence[int]) -> None:
        self._check()
        for seq in seqs:
            self.kept.pop(seq, None)

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the thumbnails are away")
