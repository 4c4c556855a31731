"""Lua scripts in files, with includes, and with keys and arguments by name.

A script names its keys and arguments in its first lines, the only place that defines their order:

    local open_key = KEYS[1]
    local task_prefix = ARGV[1]
    local max_open = tonumber(ARGV[2])
    local ids_from = 3

The last line is for scripts with any number of further arguments. A line `--- @include "other.lua"` is replaced by that
file, once in a script; its path is relative to the including file.

Scripts compute some keys from a prefix and an id that they read from Redis. KEYS therefore does not declare every key,
and Redis Cluster is not supported.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis.client import Pipeline

_INCLUDE = re.compile(r'^--- @include "(.+)"$', re.MULTILINE)
_NAME = re.compile(r"^local (\w+) = (?:tonumber\()?(KEYS|ARGV)\[(\d+)\]", re.MULTILINE)
_FURTHER = re.compile(r"^local \w+_from = (\d+)\b", re.MULTILINE)


class Script:
    """A script of one Redis with some of its keys and arguments bound; a call passes the others.

    `values` may contain names that the script does not use.
    """

    def __init__(self, redis: Redis, path: Path, values: Mapping[str, str | float] | None = None) -> None:
        self.text = read(path)
        self._keys = _names(self.text, "KEYS")
        self._args = _names(self.text, "ARGV")
        self._takes_more = _takes_more(self.text, len(self._args))
        named = {*self._keys, *self._args}
        self._values = {name: value for name, value in (values or {}).items() if name in named}
        self._unbound = named - self._values.keys()
        self._run = redis.register_script(self.text)

    def __call__(self, *further: str | float, **values: str | float) -> Any:  # noqa: ANN401 - each script has its own type of reply
        """Run the script and return its reply."""
        keys, args = self._params(further, values)
        return self._run(keys=keys, args=args)

    def queue_in(self, pipe: Pipeline, *further: str | float, **values: str | float) -> None:
        """Add the script to a pipeline by its text: with its hash, the pipeline would first ask Redis for it."""
        keys, args = self._params(further, values)
        pipe.eval(self.text, len(keys), *keys, *args)

    def _params(
        self, further: tuple[str | float, ...], values: Mapping[str, str | float]
    ) -> tuple[list[str], list[str | float]]:
        if values.keys() != self._unbound:
            message = f"the script takes {sorted(self._unbound)}, not {sorted(values)}"
            raise TypeError(message)
        if further and not self._takes_more:
            raise TypeError("the script takes no further arguments")
        known = {**self._values, **values}
        return [str(known[name]) for name in self._keys], [*(known[name] for name in self._args), *further]


@cache
def read(path: Path, *, around: tuple[str, str] = ("", "")) -> str:
    """Return the text of a script with its includes, `around` each of which are these texts.

    A process reads it once.
    """
    return _read(path, set(), around)


def _read(path: Path, included: set[Path], around: tuple[str, str]) -> str:
    def include(line: re.Match[str]) -> str:
        other = (path.parent / line[1]).resolve()
        if other in included:
            return ""
        included.add(other)
        return _read(other, included, around).join(around)

    return _INCLUDE.sub(include, path.read_text(encoding="utf-8"))


def _names(text: str, table: str) -> list[str]:
    """Return the names of the script's keys or arguments, in order."""
    numbered = [(int(number), name) for name, of, number in _NAME.findall(text) if of == table]
    if [number for number, _ in numbered] != list(range(1, len(numbered) + 1)):
        message = f"{table} must be named in order, each once: {numbered}"
        raise ValueError(message)
    return [name for _, name in numbered]


def _takes_more(text: str, named: int) -> bool:
    further = _FURTHER.findall(text)
    if further and further != [str(named + 1)]:
        message = f"further arguments begin at {named + 1}, not {further}"
        raise ValueError(message)
    return bool(further)
