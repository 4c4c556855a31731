"""`python -m api.new_key NAME SCOPE…`: makes an API key, and the lines for MATCH_API_KEYS_FILE that let it in."""

import secrets
import sys

from api.access.keys import NAME, Scope, hash_of

# Programs that look for secrets in code find it by this.
PREFIX = "match_"
KEY_BYTES = 32
USAGE = f"usage: python -m api.new_key NAME SCOPE [SCOPE …]   scopes: {', '.join(Scope)}"


def new_key() -> str:
    """Return a key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def table(name: str, scopes: list[str], key: str) -> str:
    """Return what the file needs to know of the key."""
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    return f'[[keys]]\nname = "{name}"\nsha256 = "{hash_of(key)}"\nscopes = [{listed}]\n'


def main(argv: list[str]) -> int:
    """Print a new key once, and its lines for the file; return the exit status."""
    name, *scopes = argv or [""]
    if not NAME.fullmatch(name) or not scopes or set(scopes) - {*Scope}:
        print(USAGE, file=sys.stderr)  # noqa: T201 - a command talks to who called it
        return 2
    key = new_key()
    # The lines alone go to the standard output: they can be appended to the file, the key can not.
    print(f"The key, shown this once:\n\n    {key}\n\nFor MATCH_API_KEYS_FILE:\n", file=sys.stderr)  # noqa: T201
    print(table(name, scopes, key), end="")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
