"""HTTP requests to the service, repeated while it cannot answer."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Lock, local
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from match_client.errors import TEMPORARY, ConnectionLost, MatchError, Unavailable, UnexpectedReply, class_of

VERSION = "0.1.0"
CONNECT_TIMEOUT_S = 10.0
# Longer than the service's longest `wait` by default, so that its own replies arrive.
READ_TIMEOUT_S = 120.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
NDJSON = "application/x-ndjson"

# A file of a form: its name and its bytes.
File = tuple[str, bytes]
Params = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that can be sent again: its body is in memory.

    `has_outcomes`: a failed reply with an outcome for each image is returned like a successful one.
    """

    method: str
    path: str
    query: Params | None = None
    form: Params | None = None
    files: Sequence[tuple[str, File]] = ()
    body: bytes | None = None
    content_type: str | None = None
    headers: Params | None = None
    has_outcomes: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful reply, or the outcomes of images."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Mapping[str, Any]

    @property
    def result(self) -> list[Any]:
        """The results."""
        result: list[Any] = self.json.get("result", [])
        return result


class _Bearer(AuthBase):
    """Adds the API key to requests; unlike a header of the session, it outranks a .netrc file."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


class _Anonymous(AuthBase):
    """Sends no credentials, also where a .netrc file has some for the host."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class Transport:
    """Connections to a service, one per thread.

    `retry_for_s` is how long a request is repeated after its first failure. A retry waits as long as the service
    requests, or for a pause that doubles.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retry_for_s: float = 60.0,
        timeout_s: float = READ_TIMEOUT_S,
        pause: Callable[[float], None] = sleep,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.url = url.rstrip("/")
        self.retry_for_s = retry_for_s
        self._timeouts = (CONNECT_TIMEOUT_S, timeout_s)
        self._auth = _Bearer(api_key) if api_key else _Anonymous()
        self._pause = pause
        self._clock = clock
        self._of_thread = local()
        self._sessions: list[requests.Session] = []
        self._lock = Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            while self._sessions:
                self._sessions.pop().close()

    def send(self, request: Request) -> Reply:
        """Return the reply to a request, and repeat the request while the service cannot answer."""
        backoff = self.backoff()
        while True:
            try:
                return self.send_once(request)
            except (ConnectionLost, Unavailable) as error:
                backoff.wait_after(error)

    def backoff(self) -> "Backoff":
        """Return a new series of pauses."""
        return Backoff(self.retry_for_s, pause=self._pause, clock=self._clock)

    def pause(self, seconds: float) -> None:
        """Sleep between attempts."""
        self._pause(seconds)

    def send_once(self, request: Request) -> Reply:
        """Return the reply to a request that is sent once."""
        headers = dict(request.headers or {})
        if request.content_type is not None:
            headers["Content-Type"] = request.content_type
        try:
            response = self._session().request(
                request.method,
                self.url + request.path,
                params=dict(request.query or {}),
                data=request.body if request.body is not None else dict(request.form or {}),
                files=list(request.files) or None,
                headers=headers,
                timeout=self._timeouts,
                allow_redirects=False,
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise ConnectionLost(f"{self.url} does not answer: {_reason(error)}", code="connection_lost") from error
        except requests.RequestException as error:
            raise UnexpectedReply(f"{self.url}: {_reason(error)}", code="unexpected_reply") from error
        return _reply(response, has_outcomes=request.has_outcomes)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = requests.Session()
            session.auth = self._auth
            session.headers["User-Agent"] = f"match-client/{VERSION}"
            session.headers["Accept"] = f"application/json, {NDJSON}"
            # The environment's proxies are not for a service on this machine.
            session.trust_env = not _is_local(self.url)
            self._of_thread.session = session
            with self._lock:
                self._sessions.append(session)
        return session


class Backoff:
    """The pauses between the attempts of one request."""

    def __init__(self, for_s: float, *, pause: Callable[[float], None], clock: Callable[[], float]) -> None:
        self._for_s = for_s
        self._pause = pause
        self._clock = clock
        self._started: float | None = None
        self._next_s = FIRST_PAUSE_S

    def reset(self) -> None:
        """Start again, after an attempt that made progress."""
        self._started, self._next_s = None, FIRST_PAUSE_S

    def wait_after(self, error: MatchError) -> None:
        """Wait for the next attempt; raise the error if its time is over."""
        now = self._clock()
        self._started = now if self._started is None else self._started
        # Clients that failed together do not return together.
        pause_s = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects nothing
        pause_s = max(pause_s, error.retry_after or 0.0)
        if now + pause_s > self._started + self._for_s:
            raise error
        self._pause(pause_s)
        self._next_s = min(self._next_s * 2, LONGEST_PAUSE_S)


def _reply(response: requests.Response, *, has_outcomes: bool) -> Reply:
    """Return a successful reply or one with outcomes; raise the error of any other."""
    content_type = response.headers.get("Content-Type", "").partition(";")[0]
    json = _json(response) if content_type == "application/json" else {}
    is_known = "status" in json or content_type == NDJSON or content_type.startswith("image/")
    is_successful = response.ok and response.status_code < requests.codes.multiple_choices
    if is_known and (is_successful or (has_outcomes and json.get("result"))):
        return Reply(response.status_code, response.headers, response.content, json)
    raise _error(response, json)


def _error(response: requests.Response, json: Mapping[str, Any]) -> MatchError:
    status = response.status_code
    request_id = response.headers.get("X-Request-ID")
    if "code" not in json and status not in TEMPORARY:
        return UnexpectedReply(
            f"{response.url.partition('?')[0]} answered {status}, and not as Match does",
            code="unexpected_reply",
            status=status,
            request_id=request_id,
        )
    return class_of(status)(
        "; ".join(json.get("error", ())) or f"HTTP status {status}",
        code=json.get("code", "unavailable"),
        field=json.get("field"),
        retry_after=_seconds(response.headers.get("Retry-After")),
        status=status,
        request_id=request_id,
    )


def _json(response: requests.Response) -> Mapping[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a Retry-After; a date, which the service never sends, is ignored."""
    return float(text) if text is not None and text.isdecimal() else None


def _reason(error: Exception) -> str:
    """Return the innermost reason: requests and urllib3 wrap it several times, with a text that no user needs."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "timed out" if isinstance(error, requests.Timeout) else str(cause) or type(cause).__name__


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
