"""Connections to permitted addresses only: each address of a URL's host is checked, then connected to.

No name is resolved again between the check and the connection, which defeats DNS rebinding.
"""

import ipaddress
import math
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from common.errors import FetchError
from common.net import nat64
from common.net.addresses import DEFAULT_PORTS, AllowedTarget, Target, is_public, read_url
from common.net.watchdog import Download

# A SYN is repeated after 1 and 3 s: a host that has not answered by then rarely answers later.
CONNECT_TIMEOUT_S = 5.0
# A name may have hundreds of addresses, and each dead one costs time.
ADDRESSES_MAX = 4
# A network's NAT64 prefix hardly ever changes.
NAT64_KEPT_S = 600.0

Resolve = Callable[[str], Sequence[str]]


class TransientFetchError(FetchError):
    """A FetchError that a later retry may avoid.

    `is_rejection`: the host refuses to send so much. `retry_after_s` is the time after which it wants a retry, if it
    answered with one.
    """

    def __init__(
        self, message: str, *, code: str, is_rejection: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.is_rejection = is_rejection
        self.retry_after_s = retry_after_s


class PrivateAddressError(FetchError):
    """The URL's host is an address that is not public."""

    code = "private_address"


def fetch_failed(code: str, host: str, reason: str, *, transient: bool = False) -> FetchError:
    """Return the error of a fetch; `reason` follows the host's name in its message."""
    message = f"{host} {reason}"
    return TransientFetchError(message, code=code) if transient else FetchError(message, code=code)


def resolve(host: str) -> list[str]:
    """Return a name's addresses from the system's resolver, best first."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in answers]


class Connector:
    """Connects for many threads at once; close it after use.

    `allow` lists private targets and other ports that are allowed. `threads` limits concurrent name lookups.
    """

    def __init__(self, *, allow: Sequence[AllowedTarget], resolve: Resolve, threads: int) -> None:
        self._allow = tuple(allow)
        self._resolve = resolve
        # The system's resolver cannot be interrupted: when it hangs, the download ends first, and the thread later.
        self._lookups = ThreadPoolExecutor(threads, thread_name_prefix="match-fetch-resolver")
        self._nat64: tuple[ipaddress.IPv6Network, ...] = (nat64.WELL_KNOWN,)
        self._nat64_until = -math.inf

    def validate(self, url: str) -> Target:
        """Parse a URL. Raises FetchError for one that can be rejected without resolving or connecting."""
        target = read_url(url)
        if target.is_literal:
            self._check_address(target, target.host)
        # The addresses of a name are not known yet: reject a port that no entry can allow.
        elif not any(entry.host in {None, target.host} and entry.port in {None, target.port} for entry in self._allow):
            _check_port(target)
        return target

    def connect(self, target: Target, download: Download) -> socket.socket:
        """Return a connection to one of the host's addresses. Raises FetchError unless all of them are permitted."""
        addresses = self._addresses(target, download)[:ADDRESSES_MAX]
        failure: OSError | None = None
        for nth, address in enumerate(addresses):
            limit_s = min(CONNECT_TIMEOUT_S, download.left_s / (len(addresses) - nth))
            try:
                return _connect(address, target.port, limit_s, download)
            except OSError as error:
                failure = error
        raise fetch_failed("connect_failed", target.host, "cannot be connected to", transient=True) from failure

    def close(self) -> None:
        """Stop resolving names."""
        self._lookups.shutdown(wait=False)

    def _addresses(self, target: Target, download: Download) -> list[str]:
        """Return the addresses to connect to. Raises FetchError if any of them is not permitted."""
        if target.is_literal:
            self._check_address(target, target.host, self._nat64_prefixes([target.host], download))
            return [target.host]
        addresses = self._look_up(target.host, download)
        prefixes = self._nat64_prefixes(addresses, download)
        for address in addresses:
            try:
                self._check_address(target, address, prefixes)
            except PrivateAddressError as error:
                raise _unresolvable(target.host) from error
        return addresses

    def _nat64_prefixes(self, addresses: Iterable[str], download: Download) -> Sequence[ipaddress.IPv6Network]:
        """Return the network's NAT64 prefixes, which matter for IPv6 addresses only."""
        if any(":" in address for address in addresses) and time.monotonic() >= self._nat64_until:
            try:
                self._nat64 = nat64.prefixes_of(self._look_up(nat64.PROBE_NAME, download))
            except FetchError as error:
                # The resolver of a closed network may not know the name. A download whose time has ended, which its
                # host decides, shows nothing.
                if isinstance(error, TransientFetchError) or error.code != "unresolvable_host":
                    raise
                self._nat64 = (nat64.WELL_KNOWN,)
            self._nat64_until = time.monotonic() + NAT64_KEPT_S
        return self._nat64

    def _look_up(self, host: str, download: Download) -> list[str]:
        try:
            lookup = self._lookups.submit(self._resolve, host)
        except RuntimeError as error:  # no thread is free, or the connector is closed
            raise fetch_failed("unresolvable_host", host, "cannot be resolved now", transient=True) from error
        try:
            # dict.fromkeys removes duplicates and keeps the resolver's order.
            return list(dict.fromkeys(str(ipaddress.ip_address(text)) for text in lookup.result(download.left_s)))
        except TimeoutError as error:
            lookup.cancel()
            raise fetch_failed("timeout", host, "was not resolved in time", transient=True) from error
        except (OSError, ValueError) as error:
            # EAI_AGAIN is a failure of the resolver; all other errors concern the name.
            transient = error.args[:1] == (socket.EAI_AGAIN,)
            if transient:
                raise fetch_failed("unresolvable_host", host, "cannot be resolved now", transient=True) from error
            raise _unresolvable(host) from error

    def _check_address(
        self, target: Target, address: str, prefixes: Sequence[ipaddress.IPv6Network] = (nat64.WELL_KNOWN,)
    ) -> None:
        if any(entry.allows(target.host, address, target.port) for entry in self._allow):
            return
        if not is_public(address, prefixes):
            message = f"{target.host} is not on the public internet"
            raise PrivateAddressError(message)
        _check_port(target)


def _unresolvable(host: str) -> FetchError:
    """Return one error for a name without an address and for one with a private address.

    Otherwise clients could learn which names our network has.
    """
    return fetch_failed("unresolvable_host", host, "has no public address (see MATCH_FETCH_ALLOW)")


def _connect(address: str, port: int, limit_s: float, download: Download) -> socket.socket:
    """Connect to exactly this address."""
    connected = socket.create_connection((address, port), limit_s)
    try:
        # The peer must be the checked address: all checks above depend on it.
        if ipaddress.ip_address(connected.getpeername()[0]) != ipaddress.ip_address(address):
            raise ConnectionError
        connected.settimeout(download.left_s)
        download.guard(connected)
    except OSError:
        connected.close()
        raise
    return connected


def _check_port(target: Target) -> None:
    if target.port not in DEFAULT_PORTS.values():
        reason = f"may only be reached on ports 80 and 443, not on {target.port}"
        raise fetch_failed("forbidden_port", target.host, reason)
