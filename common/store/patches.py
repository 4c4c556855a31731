"""Merge patches of metadata (RFC 7396) in the order of their sequence numbers, for images that may be stored later.

A patch is applied to the metadata of an add that was accepted before it, also if that add is stored after it. A store
therefore keeps the patches of a filepath as its history, until no earlier request can arrive any more. A patched record
keeps its metadata from before these patches, so that a late patch is applied in its order.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Patches of one filepath that are kept apart. Of more, the oldest become one change: an add that was accepted between
# two of them, and is stored after all of them, gets both.
MAX_STEPS = 32
# All changes of one filepath together, as JSON. The metadata of an image have at most 64 KiB.
MAX_BYTES = 256 * 1024

Metadata = Mapping[str, Any] | None
# Merge patches are not closed under composition: {"a": null} and then {"a": {"b": 1}} replaces `a`, which no merge
# patch does. A change is {"set": value}, where None removes, or {"merge": {key: change}}.
Change = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """The change of one patch, or of successive patches from `first` to `seq`."""

    first: int
    seq: int
    change: Change


@dataclass(frozen=True, slots=True)
class Unpatched:
    """The metadata of a record before the patches of the history `origin`, and their sequence number."""

    metadata: Metadata
    seq: int
    origin: int

    def to_json(self) -> dict[str, Any]:
        """Return the form in which stores keep it."""
        return {"metadata": self.metadata, "seq": self.seq, "origin": self.origin}


@dataclass(frozen=True, slots=True)
class History:
    """The patches of one filepath in their order; `origin` is the sequence number of the patch that began it."""

    origin: int
    steps: tuple[Step, ...] = ()

    def add(self, patch: Metadata, *, seq: int, obsolete: int = 0, applied: int = 0) -> "History":
        """Return the history with a patch, without those up to `obsolete`, which apply to no request any more.

        The stored record has the patches up to `applied`. If it has all of them, and the changes are too large
        together, this patch begins a new history. Otherwise too large changes raise ValueError.
        """
        if any(step.seq == seq for step in self.steps):
            return self
        added = Step(seq, seq, _change(patch))
        earlier = [step for step in self.steps if step.seq > obsolete]
        steps = sorted([*earlier, added], key=lambda step: step.seq)
        while len(steps) > MAX_STEPS or (len(steps) > 1 and _size(steps) > MAX_BYTES):
            oldest, second, *others = steps
            steps = [Step(oldest.first, second.seq, _compose(oldest.change, second.change)), *others]
        origin = self.origin
        if _size(steps) > MAX_BYTES and earlier and earlier[-1].seq <= applied < seq:
            # A key that was removed stays in the changes, so that those of an image grow as long as it is patched.
            origin, steps = seq, [added]
        if (size := _size(steps)) > MAX_BYTES:
            message = f"the patches of this filepath have {size} bytes, more than {MAX_BYTES}"
            raise ValueError(message)
        return History(origin, tuple(steps))

    def apply(self, unpatched: Unpatched) -> tuple[Metadata, int]:
        """Return the metadata after the later patches, and the sequence number of the last."""
        metadata, seq = unpatched.metadata, unpatched.seq
        for step in self.steps:
            if step.seq > unpatched.seq:
                metadata, seq = _apply(metadata, step.change), step.seq
        return metadata, seq

    def unpatched(self, existing: Unpatched | None, metadata: Metadata, *, seq: int) -> Unpatched:
        """Return the base of a stored record with these metadata.

        `existing` is the base that it keeps. That of an earlier history is not used: no late patch belongs to it.
        """
        if existing is not None and existing.origin == self.origin:
            return existing
        return Unpatched(metadata, seq, self.origin)

    def to_json(self) -> dict[str, Any]:
        """Return the form in which stores keep it."""
        steps = [{"first": step.first, "seq": step.seq, "change": step.change} for step in self.steps]
        return {"origin": self.origin, "steps": steps}


def merge_patch(metadata: Metadata, patch: Metadata) -> Metadata:
    """Return the metadata after a JSON merge patch.

    >>> merge_patch({"a": 1, "b": {"c": 1, "d": 2}}, {"a": None, "b": {"c": 3}})
    {'b': {'c': 3, 'd': 2}}
    """
    result: Metadata = _apply(metadata, _change(patch))
    return result


def history_of(value: Mapping[str, Any]) -> History:
    """Parse the result of `History.to_json`."""
    steps = (Step(step["first"], step["seq"], step["change"]) for step in value["steps"])
    return History(value["origin"], tuple(steps))


def unpatched_of(value: Mapping[str, Any] | None) -> Unpatched | None:
    """Parse the result of `Unpatched.to_json`."""
    return None if value is None else Unpatched(value["metadata"], value["seq"], value["origin"])


def _change(patch: Any) -> Change:  # noqa: ANN401 - JSON
    if isinstance(patch, Mapping):
        return {"merge": {key: _change(value) for key, value in patch.items()}}
    return {"set": patch}


def _apply(value: Any, change: Change) -> Any:  # noqa: ANN401 - JSON
    if "set" in change:
        return change["set"]
    result = dict(value) if isinstance(value, Mapping) else {}
    for key, inner in change["merge"].items():
        if inner == {"set": None}:
            result.pop(key, None)
        else:
            result[key] = _apply(result.get(key), inner)
    return result


def _compose(first: Change, second: Change) -> Change:
    """Return the change that has the effect of both, one after the other.

    >>> _compose(_change({"a": None, "b": 1}), _change({"a": {"c": 2}}))
    {'merge': {'a': {'set': {'c': 2}}, 'b': {'set': 1}}}
    """
    if "set" in second:
        return second
    if "set" in first:
        return {"set": _apply(first["set"], second)}
    merged = dict(first["merge"])
    for key, inner in second["merge"].items():
        merged[key] = _compose(merged[key], inner) if key in merged else inner
    return {"merge": merged}


def _size(steps: Sequence[Step]) -> int:
    return sum(len(json.dumps(step.change, allow_nan=False)) for step in steps)
