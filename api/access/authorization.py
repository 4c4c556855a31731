"""Who comes in: the key that a request brings, held against the scope of what it asks for."""

from flask import g, request

from api.access.keys import Keyring, Scope
from common.errors import MatchError

SCHEME = "bearer"
REALM = 'Bearer realm="match"'


class Refused(MatchError):
    """The request may not do what it asks for; `challenge` is told as WWW-Authenticate (RFC 6750)."""

    def __init__(self, message: str, *, code: str, challenge: str) -> None:
        super().__init__(message, code=code)
        self.challenge = challenge


class Unauthenticated(Refused):
    """The request brings no key that is known."""


class Forbidden(Refused):
    """The request's key lacks the endpoint's scope."""


class Access:
    """Lets requests in by their keys; without a keyring, all of them."""

    def __init__(self, keyring: Keyring | None) -> None:
        self._keyring = keyring

    def identify(self) -> None:
        """Note whose key the request brings: `g.key` is None where it brings none that is known."""
        # Not the framework's reading of the header, which breaks on a Basic one that is no base64.
        kind, _, secret = request.headers.get("Authorization", "").partition(" ")
        g.key = None
        if self._keyring is not None and kind.lower() == SCHEME:
            g.key = self._keyring.find(secret.strip())

    def check(self, scope: Scope | None) -> None:
        """Raise Unauthenticated or Forbidden unless the request may do what needs this scope; None is open to all."""
        if self._keyring is None or scope is None:
            return
        if g.key is None:
            raise _unauthenticated()
        if scope not in g.key.scopes:
            raise Forbidden(
                f'the key "{g.key.name}" lacks the scope {scope}',
                code="missing_scope",
                challenge=f'{REALM}, error="insufficient_scope", scope="{scope}"',
            )


def _unauthenticated() -> Unauthenticated:
    if "Authorization" not in request.headers:
        message = "this needs an API key, as Authorization: Bearer KEY"
        return Unauthenticated(message, code="key_required", challenge=REALM)
    kind, _, _ = request.headers["Authorization"].partition(" ")
    if kind.lower() != SCHEME:
        # What stands there is not repeated: it may be a key that lacks its scheme.
        message = "the scheme of the Authorization header must be Bearer, as in Authorization: Bearer KEY"
        return Unauthenticated(message, code="key_required", challenge=REALM)
    return Unauthenticated("the API key is not known", code="unknown_key", challenge=f'{REALM}, error="invalid_token"')
