"""The cookies of one fetch: some hosts set one in a redirect, and refuse the next request without it."""

from email.message import Message
from http.cookiejar import CookieJar
from typing import Any, cast
from urllib.request import Request

from urllib3 import BaseHTTPResponse


class Cookies:
    """Cookies by the rules of http.cookiejar: domain, path, expiry, and TLS for secure ones."""

    def __init__(self) -> None:
        # Few hosts set one: most fetches need no jar.
        self._jar: CookieJar | None = None

    def keep(self, response: BaseHTTPResponse, url: str) -> None:
        """Keep the cookies that the response to a request for `url` sets."""
        if "set-cookie" in response.headers:
            if self._jar is None:
                self._jar = CookieJar()
            self._jar.extract_cookies(cast("Any", _Headers(response)), _request(url))

    def header(self, url: str) -> dict[str, str]:
        """Return the Cookie header of a request for `url`; nothing without cookies."""
        if self._jar is None:
            return {}
        request = _request(url)
        self._jar.add_cookie_header(request)
        cookie = request.get_header("Cookie", "")
        # http.client sends no control character, and raises an error for some.
        return {"Cookie": cookie} if cookie.isprintable() and cookie.isascii() and cookie else {}


class _Headers:
    """The part of a response that CookieJar reads."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._headers = response.headers

    def info(self) -> Message:
        """Return the headers that set cookies."""
        message = Message()
        for value in self._headers.getlist("set-cookie"):
            message["Set-Cookie"] = value
        return message


def _request(url: str) -> Request:
    # It is only read, never opened.
    return Request(url)  # noqa: S310
