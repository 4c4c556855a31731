"""Amazon OpenSearch Service's part in front of OpenSearch: a proxy that recomputes the signature of every request.

It follows the description of Signature Version 4, and imports nothing of the code that signs.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from threading import Lock
from urllib.parse import parse_qsl, quote, urlsplit

from support.http_servers import Handler, LocalServer

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=5)
UNRESERVED = "-_.~"
MISMATCH = "The request signature we calculated does not match the signature you provided."
UNKNOWN = "The security token included in the request is invalid."


@dataclass(frozen=True, slots=True)
class Key:
    """The secret of an access key, and the session token that belongs to it."""

    secret: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was received; the names of its headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


def expected_signature(request: Request, *, secret: str, scope: str, signed: list[str]) -> str:
    """Return the signature that a request must have; `scope` is date, region, service and the word aws4_request."""
    parts = urlsplit(request.target)
    parameters = sorted(
        (quote(name, safe=UNRESERVED), quote(value, safe=UNRESERVED))
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    canonical = [
        request.method,
        quote(parts.path, safe=f"/{UNRESERVED}"),
        "&".join(f"{name}={value}" for name, value in parameters),
        *(f"{name}:{' '.join(request.headers[name].split())}" for name in signed),
        "",
        ";".join(signed),
        hashlib.sha256(request.body).hexdigest(),
    ]
    text = [ALGORITHM, request.headers["x-amz-date"], scope, hashlib.sha256("\n".join(canonical).encode()).hexdigest()]
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, "\n".join(text).encode(), "sha256").hex()


@dataclass
class Accounts:
    """The keys that may send requests to one service in one region; `problem` has the reason of a rejection."""

    region: str
    service: str
    keys: dict[str, Key] = field(default_factory=dict)

    def problem(self, request: Request) -> str:
        """Return why a request is rejected, or ""."""
        form = rf"{ALGORITHM} Credential=([^/]+)/([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{{64}})"
        match = re.fullmatch(form, request.headers.get("authorization", ""))
        if match is None:
            return "Missing Authentication Token"
        access_key, scope, signed = match[1], match[2], match[3].split(";")
        key = self.keys.get(access_key)
        if key is None or key.token != request.headers.get("x-amz-security-token"):
            return UNKNOWN
        sent_at = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(datetime.now(UTC) - sent_at) > SKEW:
            return "Signature expired"
        required = {"host", *(name for name in request.headers if name.startswith("x-amz-") or name == "content-type")}
        is_signed = (
            scope == f"{sent_at:%Y%m%d}/{self.region}/{self.service}/aws4_request"
            and required <= set(signed)
            and request.headers.get("x-amz-content-sha256") == hashlib.sha256(request.body).hexdigest()
            and match[4] == expected_signature(request, secret=key.secret, scope=scope, signed=signed)
        )
        return "" if is_signed else MISMATCH


class SigningProxy(LocalServer):
    """Forwards requests with a valid signature to the server at `url`, and rejects others as Amazon does.

    `used` has the access keys of accepted requests in their order. `ignores_parameters` drops the parameters of POST
    requests, as Amazon's manual describes it for signed ones.
    """

    def __init__(self, url: str, accounts: Accounts) -> None:
        super().__init__(_Handler)
        self.upstream = urlsplit(url).netloc
        self.accounts = accounts
        self.lock = Lock()
        self.used: list[str] = []
        self.rejected: list[str] = []
        self.ignores_parameters = False


class _Handler(Handler):
    server: SigningProxy
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.body())
        problem = self.server.accounts.problem(request)
        with self.server.lock:
            if problem:
                self.server.rejected.append(problem)
            else:
                self.server.used.append(headers["authorization"].partition("Credential=")[2].partition("/")[0])
        if problem:
            self.reply(403, json.dumps({"message": problem}).encode(), {"Content-Type": "application/json"})
        else:
            self._forward(request)

    do_DELETE = answer  # noqa: N815 - the name is http.server's

    def _forward(self, request: Request) -> None:
        drops = self.server.ignores_parameters and request.method == "POST"
        target = request.target.partition("?")[0] if drops else request.target
        kept = {name: value for name, value in request.headers.items() if name in {"accept", "content-type"}}
        connection = HTTPConnection(self.server.upstream, timeout=60)
        try:
            connection.request(request.method, target, request.body or None, kept)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        self.reply(response.status, body, {"Content-Type": response.headers["Content-Type"] or "application/json"})


class CredentialsEndpoint(LocalServer):
    """The endpoint from which a container gets credentials of its role: each response has new ones.

    They are added to `accounts`, and only the newest may be used. They expire so soon that each request renews them.
    """

    def __init__(self, accounts: Accounts) -> None:
        super().__init__(_Credentials)
        self.accounts = accounts
        self.lock = Lock()
        self.issued = 0

    def issue(self) -> dict[str, str]:
        """Return new credentials."""
        with self.lock:
            self.issued += 1
            name, key = f"ASIA{self.issued:04}", Key(f"secret-{self.issued}", f"token/{self.issued}+=")
            self.accounts.keys = {name: key}
        expires = datetime.now(UTC) + timedelta(minutes=5)
        return {
            "AccessKeyId": name,
            "SecretAccessKey": key.secret,
            "Token": key.token or "",
            "Expiration": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        }


class _Credentials(Handler):
    server: CredentialsEndpoint

    def answer(self) -> None:
        self.reply(body=json.dumps(self.server.issue()).encode(), headers={"Content-Type": "application/json"})
