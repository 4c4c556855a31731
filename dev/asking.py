"""HTTP checks of servers on this machine; proxies of the environment are not used."""

from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

_OPENER = build_opener(ProxyHandler({}))


def answers(url: str, *, within_s: float) -> bool:
    """Return whether a GET succeeds."""
    try:
        with _OPENER.open(url, timeout=within_s):
            return True
    except HTTPError as error:
        # It holds the reply's connection.
        error.close()
        return False
    except (OSError, HTTPException):
        return False
