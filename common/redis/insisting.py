"""A Redis client for the queue's bookkeeping, which is let through when Redis has no memory left.

A full Redis refuses every command that might need more, and so the notes by which a worker takes, gives back and
acknowledges messages: nothing would be worked off and no memory ever freed. A script whose first write frees memory is
let through to its end. What is refused is sent again as such a script; new work was refused before, by `Admission`.
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


class InsistingClient(Redis):
    """A client that sends again what was refused for want of memory; the replies to that are raw."""

    def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """Send a command, twice if need be."""
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's has no types
        except OutOfMemoryError:
            return self.insist([args])[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "InsistingPipeline":  # noqa: ANN401, FBT001, FBT002 - as redis-py has it
        """Return a pipeline that does the same."""
        return InsistingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def register_script(self, script: Any) -> Script:  # noqa: ANN401 - as redis-py has it
        """Return a script that is let through at once: inside another it could not be called."""
        return super().register_script(_ALLOW_OOM + script)

    def insist(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands, all or none of them done; raises what the first one raises that fails."""
        words = [word for command in commands for word in (len(command), *command)]
        return list(super().execute_command("EVAL", _RUN_COMMANDS, 0, *words))  # type: ignore[no-untyped-call]


class InsistingPipeline(Pipeline):
    """Its commands are sent again all together: those of them that were done already change nothing, or send twice."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as redis-py has it
        """Send all commands, twice if need be."""
        commands = [args for args, _ in self.command_stack]
        try:
            return super().execute(raise_on_error)
        except OutOfMemoryError:
            client = InsistingClient(connection_pool=self.connection_pool)
            return client.insist(commands)
