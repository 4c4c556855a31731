"""The command lines of the service's programs: --help, and an error for an argument that a program does not take."""

from argparse import ArgumentParser

SETTINGS_PAGE = "docs/settings.md"


def parser(module: str, description: str) -> ArgumentParser:
    """Return a parser for `python -m module` without arguments; the settings come from the environment."""
    return ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=f"Environment variables are the settings: {SETTINGS_PAGE} lists them.",
        allow_abbrev=False,
    )
