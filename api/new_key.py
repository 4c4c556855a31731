"""Make an API key, and the lines of MATCH_API_KEYS_FILE that accept it: `python -m api.new_key NAME SCOPE…`.

`--collection NAME`, once or more often, limits the key to these collections.
"""

import secrets
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence

from api.access.keys import NAME, Scope, hash_of
from common import command_line
from common.collection_names import PATTERN

# Secret scanners find keys in code by this prefix.
PREFIX = "match_"
KEY_BYTES = 32


def new_key() -> str:
    """Return a key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def table(name: str, scopes: Sequence[str], key: str, collections: Sequence[str] = ()) -> str:
    """Return the key's entry in the file; without `collections` it is not limited to some."""
    entry = f'[[keys]]\nname = "{name}"\nsha256 = "{hash_of(key)}"\nscopes = [{_quoted(scopes)}]\n'
    return entry + (f"collections = [{_quoted(collections)}]\n" if collections else "")


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def main(argv: Sequence[str]) -> int:
    """Print a new key once, and its entry in the file; return the exit status."""
    parser = command_line.parser("api.new_key", "Make an API key and its entry in the file MATCH_API_KEYS_FILE.")
    parser.add_argument("name", metavar="NAME", type=_name, help="the key's name in logs and rate limits")
    parser.add_argument(
        "scopes", metavar="SCOPE", nargs="+", choices=[scope.value for scope in Scope], help=", ".join(Scope)
    )
    parser.add_argument(
        "--collection",
        metavar="COLLECTION",
        dest="collections",
        action="append",
        default=[],
        type=_pattern,
        help="a collection that the key may use, such as a or shop-*; repeat it for more (default: all)",
    )
    arguments = parser.parse_args(argv)
    key = new_key()
    # Only the entry goes to the standard output: it can be appended to the file, the key cannot.
    print(f"The key, shown only once:\n\n    {key}\n\nFor MATCH_API_KEYS_FILE:\n", file=sys.stderr)  # noqa: T201
    print(table(arguments.name, arguments.scopes, key, arguments.collections), end="")  # noqa: T201
    return 0


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ArgumentTypeError("must be 1 to 64 letters, digits, dots, hyphens or underscores")
    return text


def _pattern(text: str) -> str:
    if not PATTERN.fullmatch(text):
        raise ArgumentTypeError("must be 1 to 63 lowercase letters, digits, hyphens, underscores or asterisks")
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
