"""A parser of Dockerfiles: stages of instructions, with continued lines joined."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Stage:
    """The instructions after a FROM; `base` is an image or the name of an earlier stage."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def each(self, word: str) -> list[str]:
        """Return the arguments of each occurrence of an instruction."""
        return [rest for instruction, rest in self.instructions if instruction == word]

    @property
    def healthcheck(self) -> list[str]:
        """Return the command of HEALTHCHECK, or an empty list."""
        checks = self.each("HEALTHCHECK")
        return json.loads(checks[-1].partition("CMD")[2]) if checks else []

    @property
    def entrypoint(self) -> list[str]:
        """Return the command of ENTRYPOINT."""
        return json.loads(self.each("ENTRYPOINT")[-1])

    @property
    def copies(self) -> list[tuple[str, list[str], str]]:
        """Return stage ('' for the build context), sources and target of each COPY."""
        copies = []
        for rest in self.each("COPY"):
            *sources, target = shlex.split(rest)
            origin = sources.pop(0).removeprefix("--from=") if sources[0].startswith("--from=") else ""
            copies.append((origin, sources, target))
        return copies


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """All stages, in order."""

    stages: tuple[Stage, ...]

    def final(self, target: str | None = None) -> Stage:
        """Return the stage with this name; the last one without a name."""
        return self.stages[-1] if target is None else next(stage for stage in self.stages if stage.name == target)

    def line(self, stage: Stage) -> list[Stage]:
        """Return a stage after the stages on which it is based."""
        below = [other for other in self.stages if other.name == stage.base]
        return [*self.line(below[0]), stage] if below else [stage]

    def environment(self, stage: Stage) -> dict[str, str]:
        """Return the variables that ENV sets in a stage and below it."""
        words = [word for part in self.line(stage) for rest in part.each("ENV") for word in shlex.split(rest)]
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
