"""A Redis client for kombu that is exempt from maxmemory.

A full Redis rejects every command that may need memory, including those that receive, requeue and acknowledge messages.
Workers could then finish no task and free no memory. Redis accepts a script whose first write frees memory. This client
uses one to repeat a rejected command. `Admission` limits new work.
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
    """A client that repeats commands that were rejected for lack of memory; replies of the second run are raw."""

    def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's interface
        """Run a command; if it is rejected for lack of memory, run it again, exempt from maxmemory."""
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py has no type for it
        except OutOfMemoryError:
            return self.allow_oom([args])[0]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "OomExemptPipeline":  # noqa: ANN401, FBT001, FBT002 - redis-py's interface
        """Return an exempt pipeline."""
        return OomExemptPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def register_script(self, script: Any) -> Script:  # noqa: ANN401 - redis-py's interface
        """Return the script with the exemption in its own text: `allow_oom` cannot run a script in a script."""
        return super().register_script(_ALLOW_OOM + script)

    def allow_oom(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands in one script, exempt from maxmemory; raise the error of the first that fails."""
        words = [word for command in commands for word in (len(command), *command)]
        return list(super().execute_command("EVAL", _RUN_COMMANDS, 0, *words))  # type: ignore[no-untyped-call]


class OomExemptPipeline(Pipeline):
    """A pipeline that repeats all its commands. Repeated commands change nothing, or send a message twice."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - redis-py's interface
        """Run all commands; if one is rejected for lack of memory, run all again, exempt from maxmemory."""
        commands = [args for args, _ in self.command_stack]
        try:
            return super().execute(raise_on_error)
        except OutOfMemoryError:
            return OomExemptClient(connection_pool=self.connection_pool).allow_oom(commands)
