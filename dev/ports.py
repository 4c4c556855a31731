"""Free TCP ports of this machine."""

import socket
from itertools import chain

LOOPBACK = "127.0.0.1"
# Ports below are privileged.
LOW_PORT = 1024
TOP_PORT = 65_535


def free_port() -> int:
    """Return a free TCP port of the loopback address."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def nearest_free(host: str, port: int, *, reserved: int) -> int:
    """Return the nearest free port above `port`, else below; never `reserved`."""
    candidates = chain(range(port + 1, TOP_PORT + 1), range(port - 1, LOW_PORT, -1))
    return next(candidate for candidate in candidates if candidate != reserved and is_free(host, candidate))


def is_free(host: str, port: int) -> bool:
    """Return whether a program could listen on this address."""
    try:
        listen(host, port)
    except OSError:
        return False
    return True


def listen(host: str, port: int) -> None:
    """Bind the port for a moment; raises OSError when that fails. An IPv6 address may have brackets."""
    family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
