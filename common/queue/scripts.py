"""The queue's Lua scripts, in `lua/`; each runs as a whole or not at all."""

from pathlib import Path

from redis import Redis

from common.queue.keys import IN_SCRIPTS
from common.redis.scripts import Script

FOLDER = Path(__file__).parent / "lua"


def script(redis: Redis, name: str, **values: str | float) -> Script:
    """Return the script of this name, which knows the names of its keys, and these values."""
    return Script(redis, FOLDER / f"{name}.lua", {**IN_SCRIPTS, **values})
