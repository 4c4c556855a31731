"""Make an API key, and the lines of MATCH_API_KEYS_FILE that accept it: `python -m api.new_key NAME SCOPE…`."""

import secrets
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence

from api.access.keys import NAME, Scope, hash_of
from common import command_line

# Secret scanners find keys in code by this prefix.
PREFIX = "match_"
KEY_BYTES = 32


def new_key() -> str:
    """Return a key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def table(name: str, scopes: Sequence[str], key: str) -> str:
    """Return the key's entry in the file."""
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    return f'[[keys]]\nname = "{name}"\nsha256 = "{hash_of(key)}"\nscopes = [{listed}]\n'


def main(argv: Sequence[str]) -> int:
    """Print a new key once, and its entry in the file; return the exit status."""
    parser = command_line.parser("api.new_key", "Make an API key and its entry in the file MATCH_API_KEYS_FILE.")
    parser.add_argument("name", metavar="NAME", type=_name, help="the key's name in logs and rate limits")
    parser.add_argument(
        "scopes", metavar="SCOPE", nargs="+", choices=[scope.value for scope in Scope], help=", ".join(Scope)
    )
    arguments = parser.parse_args(argv)
    key = new_key()
    # Only the entry goes to the standard output: it can be appended to the file, the key cannot.
    print(f"The key, shown only once:\n\n    {key}\n\nFor MATCH_API_KEYS_FILE:\n", file=sys.stderr)  # noqa: T201
    print(table(arguments.name, arguments.scopes, key), end="")  # noqa: T201
    return 0


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ArgumentTypeError("must be 1 to 64 letters, digits, dots, hyphens or underscores")
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
