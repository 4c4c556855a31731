"""Asks servers of this machine whether they are there, past any proxy that the environment names."""

from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

_OPENER = build_opener(ProxyHandler({}))


def answers(url: str, *, within_s: float) -> bool:
    """Say whether a GET is answered with success."""
    try:
        with _OPENER.open(url, timeout=within_s):
            return True
    except (OSError, HTTPException):
        return False
