"""A Redis client for the queue's bookkeeping that is exempt from maxmemory.

A full Redis refuses every command that might need more memory, and so the commands by which a worker takes, returns and
acknowledges messages: no task would be finished and no memory ever freed. A script whose first write frees memory runs
to its end. This client repeats a refused command as such a script; new work was refused before, by `Admission`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import OutOfMemoryError

from common.redis.scripts import read

_FOLDER = Path(__file__).parent / "lua"
_ALLOW_OOM = read(_FOLDER / "allow_oom.lua")
_RUN_COMMANDS = read(_FOLDER / "run_commands.lua")


class OomExemptClient(Redis):
    """A client that repeats commands refused for lack of memory; their replies then are raw."""

    def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """Run a command, a second time exempt from maxmemory if need be."""
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's has no types
        except OutOfMemoryError:
            return self.allow_oom([args])[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "OomExemptPipeline":  # noqa: ANN401, FBT001, FBT002 - as redis-py has it
        """Return a pipeline that does the same."""
        return OomExemptPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def register_script(self, script: Any) -> Script:  # noqa: ANN401 - as redis-py has it
        """Return a script that is exempt itself: another script could not call it."""
        return super().register_script(_ALLOW_OOM + script)

    def allow_oom(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands in one step, exempt from maxmemory; raise the error of the first that fails."""
        words = [word for command in commands for word in (len(command), *command)]
        return list(super().execute_command("EVAL", _RUN_COMMANDS, 0, *words))  # type: ignore[no-untyped-call]


class OomExemptPipeline(Pipeline):
    """Repeats all its commands: those that were run already change nothing, or send a message twice."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as redis-py has it
        """Run all commands, a second time exempt from maxmemory if need be."""
        commands = [args for args, _ in self.command_stack]
        try:
            return super().execute(raise_on_error)
        except OutOfMemoryError:
            return OomExemptClient(connection_pool=self.connection_pool).allow_oom(commands)
