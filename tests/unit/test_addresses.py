"""Tests and fuzzers name only addresses of this machine and of documentation: a mistake reaches nobody."""

import ast
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
DOCUMENTATION = [
    ip_network(network) for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
# These compare addresses with rules, and connect to none of them.
EXEMPT = {
    "unit/test_fetch.py": "rules on addresses, with sockets in memory",
    "unit/test_config.py": "networks in settings, which are parsed",
    "fuzz/test_settings.py": "networks in settings, which are parsed",
    "fuzz/test_urls.py": "rules on addresses, with sockets in memory",
    "e2e/test_bad_input.py": "addresses that the API refuses",
    "integration/test_fetch_attacks.py": "answers of a resolver that are refused",
    "integration/test_fetch_hosts.py": "answers of a resolver behind a prefix of documentation",
    "integration/test_elastic_bulk.py": "versions of four numbers",
    "integration/test_elastic_server.py": "versions of four numbers",
    "manifests/test_example.py": "addresses that network policies allow",
    "manifests/test_network.py": "addresses that network policies exclude",
    "manifests/test_platforms.py": "addresses that network policies allow and exclude",
    "unit/test_addresses.py": "the findings of this test",
}
ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-f]{0,4}:){2,7}(?:[0-9a-f]{0,4}|[\d.]+))(?![\w.:])"
)


def texts(path: Path) -> Iterator[str]:
    """Yield the strings in the code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def addresses(text: str) -> Iterator[IPv4Address | IPv6Address]:
    """Yield the addresses in a text."""
    for match in ADDRESS.finditer(text):
        try:
            yield ip_address(match[0])
        except ValueError:
            continue


def is_harmless(address: IPv4Address | IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    own = mapped.is_loopback or mapped.is_unspecified
    return own or any(mapped.version == network.version and mapped in network for network in DOCUMENTATION)


def test_tests_name_only_harmless_addresses() -> None:
    named = {
        (f"{path.relative_to(TESTS)}", f"{address}")
        for path in TESTS.rglob("*.py")
        for text in texts(path)
        for address in addresses(text)
        if not is_harmless(address)
    }

    assert {(file, address) for file, address in named if file not in EXEMPT} == set()


def test_each_exempt_file_exists_and_needs_it() -> None:
    needing = {
        name
        for name in EXEMPT
        for text in texts(TESTS / name)
        for address in addresses(text)
        if not is_harmless(address)
    }

    assert needing == set(EXEMPT)


def test_addresses_are_recognized_in_texts() -> None:
    text = "http://8.8.8.8/a, http://[2606:4700::1111]:80/, 192.0.2.1:80, ::1, 127.0.0.1, 1.2.3, 12:30:00"

    assert [f"{address}" for address in addresses(text) if not is_harmless(address)] == ["8.8.8.8", "2606:4700::1111"]
