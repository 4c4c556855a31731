"""The command of a Redis container, run with the Redis of this machine."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from dev.redis_server import find_program
from support.waiting import wait_until


@contextmanager
def running_redis(command: Sequence[str], *, password: str, folder: Path) -> Iterator[str]:
    """Run a container's command with its password in REDISCLI_AUTH; yield Redis's socket when it answers."""
    socket, program = str(folder / "redis.sock"), folder / "redis-server"
    program.write_text(f'#!/bin/sh\nexec {find_program()} --dir {folder} --port 0 --unixsocket {socket} "$@"\n')
    program.chmod(0o755)
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", "REDISCLI_AUTH": password}
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL)
    try:
        with Redis(unix_socket_path=socket, password=password) as client:
            wait_until(lambda: _is_answered(client), "Redis answers")
        yield socket
    finally:
        process.kill()
        process.wait()


def read_appendonly(socket: str, *, password: str) -> Any:
    """Return the setting `appendonly`, read with the password; fails if Redis answers without one."""
    with Redis(unix_socket_path=socket) as keyless, pytest.raises(AuthenticationError):
        keyless.ping()
    with Redis(unix_socket_path=socket, password=password) as client:
        return client.config_get("appendonly")


def _is_answered(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:
        return False
