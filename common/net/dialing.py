"""Connections to permitted addresses alone: what a URL's host resolves to is judged first, then connected to.

Nothing is resolved again between the check and the connection, so a name that changes its address gains nothing.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from common.errors import FetchError
from common.net.addresses import DEFAULT_PORTS, AllowedTarget, Target, is_public, read_url
from common.net.watchdog import Download

# A SYN is repeated after 1 and 3 s: whoever has not answered then will hardly do so.
CONNECT_TIMEOUT_S = 5.0
# A name may have hundreds of addresses; each that is dead costs time.
ADDRESSES_MAX = 4

Resolve = Callable[[str], Sequence[str]]


class TransientFetchError(FetchError):
    """A FetchError that another try may not meet."""


def fetch_failed(code: str, host: str, reason: str, *, transient: bool = False) -> FetchError:
    """Return the error of a fetch; `reason` goes on after the host's name."""
    return (TransientFetchError if transient else FetchError)(f"{host} {reason}", code=code)


def resolve(host: str) -> list[str]:
    """Return the addresses that the system's resolver has for a name, best first."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in answers]


class Dialer:
    """Connects for many threads at once; close it when done.

    `allow` names what may be connected to although it is private, or at another port. `threads` is how many names may
    be resolved at once.
    """

    def __init__(self, *, allow: Sequence[AllowedTarget], resolve: Resolve, threads: int) -> None:
        self._allow = tuple(allow)
        self._resolve = resolve
        # The system's resolver cannot be interrupted: when it hangs, the download ends, and the thread later.
        self._lookups = ThreadPoolExecutor(threads, thread_name_prefix="match-fetch-resolver")

    def vet(self, url: str) -> Target:
        """Read a URL; raises FetchError for one that is refused without resolving or connecting."""
        target = read_url(url)
        if target.is_literal:
            self._judge(target, target.host)
        # Which address a name has is not known yet: the port is refused that no entry could admit.
        elif not any(entry.host in {None, target.host} and entry.port in {None, target.port} for entry in self._allow):
            _refuse_port(target)
        return target

    def dial(self, target: Target, download: Download) -> socket.socket:
        """Return a connection to one of the host's addresses, all of which are permitted; raises FetchError."""
        addresses = self._addresses(target, download)[:ADDRESSES_MAX]
        failure: OSError | None = None
        for nth, address in enumerate(addresses):
            limit_s = min(CONNECT_TIMEOUT_S, download.left_s / (len(addresses) - nth))
            try:
                return _connect(address, target.port, limit_s, download)
            except OSError as error:
                failure = error
        raise fetch_failed("connect_failed", target.host, "takes no connection", transient=True) from failure

    def close(self) -> None:
        """Resolve no more names."""
        self._lookups.shutdown(wait=False)

    def _addresses(self, target: Target, download: Download) -> list[str]:
        """Return the addresses to connect to; one that is not permitted condemns all."""
        if target.is_literal:
            return [target.host]
        addresses = self._look_up(target.host, download)
        for address in addresses:
            self._judge(target, address)
        return addresses

    def _look_up(self, host: str, download: Download) -> list[str]:
        try:
            lookup = self._lookups.submit(self._resolve, host)
        except RuntimeError as error:  # no more threads now, or closed meanwhile
            raise fetch_failed("unresolvable_host", host, "cannot be resolved now", transient=True) from error
        try:
            # dict.fromkeys: without repeats, in the resolver's order.
            return list(dict.fromkeys(str(ipaddress.ip_address(text)) for text in lookup.result(download.left_s)))
        except TimeoutError as error:
            lookup.cancel()
            raise fetch_failed("timeout", host, "was not resolved in time") from error
        except (OSError, ValueError) as error:
            # EAI_AGAIN is the resolver's trouble, everything else the name's.
            transient = error.args[:1] == (socket.EAI_AGAIN,)
            raise fetch_failed("unresolvable_host", host, "cannot be resolved", transient=transient) from error

    def _judge(self, target: Target, address: str) -> None:
        if any(entry.admits(target.host, address, target.port) for entry in self._allow):
            return
        if not is_public(address):
            raise fetch_failed("private_address", target.host, "is not on the public internet")
        _refuse_port(target)


def _connect(address: str, port: int, limit_s: float, download: Download) -> socket.socket:
    """Connect to exactly this address."""
    connected = socket.create_connection((address, port), limit_s)
    try:
        # It cannot be another; but everything above rests on that.
        if ipaddress.ip_address(connected.getpeername()[0]) != ipaddress.ip_address(address):
            raise ConnectionError
        connected.settimeout(download.left_s)
        download.guard(connected)
    except OSError:
        connected.close()
        raise
    return connected


def _refuse_port(target: Target) -> None:
    if target.port not in DEFAULT_PORTS.values():
        reason = f"may be reached on ports 80 and 443 alone, not on {target.port}"
        raise fetch_failed("forbidden_port", target.host, reason)
