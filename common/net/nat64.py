"""NAT64: IPv6 addresses that a gateway of the network translates to the IPv4 address inside them.

RFC 6052 defines the addresses and the well-known prefix, RFC 7050 how a host finds the prefix of its network.
"""

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

WELL_KNOWN = ipaddress.IPv6Network("64:ff9b::/96")
PROBE_NAME = "ipv4only.arpa"
"""A name that has only IPv4 addresses: an IPv6 address of it was synthesized (RFC 7050, 2.2)."""
_PROBE_ADDRESSES = (ipaddress.IPv4Address("192.0.0.170"), ipaddress.IPv4Address("192.0.0.171"))
# Where the IPv4 address is, by the prefix's length in bits: bits 64 to 71 are always 0 (RFC 6052, 2.2).
_OCTETS = {
    32: (4, 5, 6, 7),
    40: (5, 6, 7, 9),
    48: (6, 7, 9, 10),
    56: (7, 9, 10, 11),
    64: (9, 10, 11, 12),
    96: (12, 13, 14, 15),
}


def prefixes_of(answers: Iterable[str]) -> tuple[ipaddress.IPv6Network, ...]:
    """Return the prefixes that the addresses of PROBE_NAME show, after WELL_KNOWN.

    >>> prefixes_of(["192.0.0.170", "2001:db8:64::192.0.0.170"])
    (IPv6Network('64:ff9b::/96'), IPv6Network('2001:db8:64::/96'))
    """
    prefixes = [WELL_KNOWN]
    for answer in answers:
        address = ipaddress.ip_address(answer)
        if isinstance(address, ipaddress.IPv6Address):
            lengths = [length for length in _OCTETS if _embedded(address, length) in _PROBE_ADDRESSES]
            prefixes += [ipaddress.IPv6Network((address, length), strict=False) for length in lengths]
    return tuple(dict.fromkeys(prefixes))


def translated(address: Address, prefixes: Iterable[ipaddress.IPv6Network]) -> Address:
    """Return the IPv4 address that a gateway connects to for `address`; an address of no prefix is returned itself.

    >>> translated(ipaddress.ip_address("64:ff9b::7f00:1"), [WELL_KNOWN])
    IPv4Address('127.0.0.1')
    """
    for prefix in prefixes:
        if isinstance(address, ipaddress.IPv6Address) and address in prefix:
            return _embedded(address, prefix.prefixlen)
    return address


def _embedded(address: ipaddress.IPv6Address, length: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bytes(address.packed[octet] for octet in _OCTETS[length]))
