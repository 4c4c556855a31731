"""The queue's Lua scripts, in `lua/`; Redis runs each atomically."""

from pathlib import Path

from redis import Redis

from common.collection_names import DEFAULT_COLLECTION
from common.queue.keys import SCRIPT_KEYS
from common.redis.scripts import Script

FOLDER = Path(__file__).parent / "lua"


def script(redis: Redis, name: str, **values: str | float) -> Script:
    """Return the script of this name with its keys and these values bound."""
    return Script(redis, FOLDER / f"{name}.lua", {**SCRIPT_KEYS, "default_collection": DEFAULT_COLLECTION, **values})
