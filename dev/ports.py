"""Free TCP ports for what a developer's machine runs."""

import socket
from itertools import chain

LOOPBACK = "127.0.0.1"
# Below, ports are the system's.
LOW_PORT = 1024
TOP_PORT = 65_535


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def nearest_free(host: str, port: int, *, but: int) -> int:
    """Return the next port above, else below, on which a program could listen; never `but`."""
    near = chain(range(port + 1, TOP_PORT + 1), range(port - 1, LOW_PORT, -1))
    return next(one for one in near if one != but and is_free(host, one))


def is_free(host: str, port: int) -> bool:
    """Say whether a program could listen there."""
    try:
        listen(host, port)
    except OSError:
        return False
    return True


def listen(host: str, port: int) -> None:
    """Take the port for a moment; raises OSError where that cannot be done. An IPv6 address may have its brackets."""
    family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
