"""Dockerfiles as their builder reads them: stages of instructions, with continuations joined."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Stage:
    """What follows a FROM; `base` is an image, or the name of an earlier stage."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def each(self, word: str) -> list[str]:
        """Return what stands after an instruction, each time that it is there."""
        return [rest for instruction, rest in self.instructions if instruction == word]

    @property
    def healthcheck(self) -> list[str]:
        """Return the command that tells whether it is healthy; empty where there is none."""
        found = self.each("HEALTHCHECK")
        return json.loads(found[-1].partition("CMD")[2]) if found else []

    @property
    def entrypoint(self) -> list[str]:
        """Return the command that it runs."""
        return json.loads(self.each("ENTRYPOINT")[-1])

    @property
    def copies(self) -> list[tuple[str, list[str], str]]:
        """Return what is copied: the stage that it comes from ('' for the source), what, and where to."""
        found = []
        for rest in self.each("COPY"):
            *sources, target = shlex.split(rest)
            origin = sources.pop(0).removeprefix("--from=") if sources[0].startswith("--from=") else ""
            found.append((origin, sources, target))
        return found


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """All stages, in order."""

    stages: tuple[Stage, ...]

    def final(self, target: str | None = None) -> Stage:
        """Return the stage that an image is made of; the last where no target is named."""
        return self.stages[-1] if target is None else next(stage for stage in self.stages if stage.name == target)

    def line(self, stage: Stage) -> list[Stage]:
        """Return a stage with those that it is based on, the lowest first."""
        below = [one for one in self.stages if one.name == stage.base]
        return [*self.line(below[0]), stage] if below else [stage]

    def environment(self, stage: Stage) -> dict[str, str]:
        """Return what ENV sets in a stage, those below it included."""
        words = [word for one in self.line(stage) for rest in one.each("ENV") for word in shlex.split(rest)]
        return dict(word.split("=", 1) for word in words)


def read_dockerfile(path: Path) -> Dockerfile:
    """Read a Dockerfile."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[Stage] = []
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        else:
            stages[-1].instructions.append((word, rest.strip()))
    return Dockerfile(tuple(stages))
