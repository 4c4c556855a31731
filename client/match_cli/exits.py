"""The exit codes of the command line, each with its meaning."""

from enum import IntEnum

from match_client import ConnectionLost, InvalidSource, MatchError, Unavailable


class Exit(IntEnum):
    """The exit code of a command."""

    OK = 0
    # Some images failed; the others are stored.
    INCOMPLETE = 1
    # Wrong arguments, settings or files.
    USAGE = 2
    # The service does not answer, or cannot answer now.
    UNAVAILABLE = 3
    # The service rejected the request.
    REJECTED = 4
    # Ctrl-C, as shells report it.
    INTERRUPTED = 130


class UsageProblem(Exception):
    """Wrong arguments, settings or files; the message has the reason."""


def exit_of(error: MatchError) -> Exit:
    """Return the exit code of an error."""
    if isinstance(error, ConnectionLost | Unavailable):
        return Exit.UNAVAILABLE
    return Exit.USAGE if isinstance(error, InvalidSource) else Exit.REJECTED
