"""Authorization: the API key of a request and the scope that an endpoint requires."""

from flask import g, request

from api.access.keys import Keyring, Scope
from api.errors import ERRORS
from common.errors import MatchError

SCHEME = "bearer"
REALM = 'Bearer realm="match"'


class AccessDenied(MatchError):
    """The request may not use the endpoint; `challenge` is the WWW-Authenticate header of the reply (RFC 6750)."""

    def __init__(self, message: str, *, code: str, challenge: str) -> None:
        super().__init__(message, code=code)
        self.challenge = challenge


class Access:
    """Checks the API keys of requests; without a keyring, every request is allowed."""

    def __init__(self, keyring: Keyring | None) -> None:
        self._keyring = keyring

    def identify(self) -> None:
        """Set `g.key` to the request's API key, or to None where it has no valid one.

        `g.is_open`: the service has no keys.
        """
        # Not the framework's parser, which fails on Basic credentials that are not base64.
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        g.key, g.is_open = None, self._keyring is None
        if self._keyring is not None and scheme.lower() == SCHEME:
            g.key = self._keyring.find(secret.strip())

    def check_key(self) -> None:
        """Raise AccessDenied unless the request has a valid key; its scopes do not matter."""
        if self._keyring is not None and g.key is None:
            raise _unauthenticated()

    def check(self, scope: Scope | None) -> None:
        """Raise AccessDenied unless the request's key has the scope; None is open to every request."""
        if self._keyring is None or scope is None:
            return
        self.check_key()
        check_scope(scope)


def check_scope(scope: Scope) -> None:
    """Raise AccessDenied unless the request, whose key is identified, has the scope."""
    if has_scope(scope):
        return
    raise AccessDenied(
        f'API key "{g.key.name}" lacks the scope {scope}',
        code="missing_scope",
        challenge=f'{REALM}, error="insufficient_scope", scope="{scope}"',
    )


def has_scope(scope: Scope) -> bool:
    """Return whether the request, whose key is identified, has the scope."""
    return bool(g.is_open or scope in g.key.scopes)


def check_all_collections() -> None:
    """Raise AccessDenied if the request's key, which is identified, is limited to some collections."""
    if g.is_open or g.key.collections is None:
        return
    raise AccessDenied(
        f'API key "{g.key.name}" is limited to some collections: this request concerns all of them',
        code="missing_scope",
        challenge=f'{REALM}, error="insufficient_scope"',
    )


def _unauthenticated() -> AccessDenied:
    if "Authorization" not in request.headers:
        message = f"{ERRORS['key_required'].text}: send the header Authorization: Bearer KEY"
        return AccessDenied(message, code="key_required", challenge=REALM)
    scheme, _, _ = request.headers["Authorization"].partition(" ")
    if scheme.lower() != SCHEME:
        # The value is not repeated: it may be a key without its scheme.
        message = "Authorization: the scheme must be Bearer, as in Authorization: Bearer KEY"
        return AccessDenied(message, code="key_required", challenge=REALM)
    return AccessDenied(ERRORS["unknown_key"].text, code="unknown_key", challenge=f'{REALM}, error="invalid_token"')
