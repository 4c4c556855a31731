"""The source URL of an image as it is stored: without fragment, credentials and signed query parameters."""

import re
from urllib.parse import unquote

from common.errors import FetchError
from common.net.addresses import DEFAULT_PORTS, read_url

# Parameters of signed URLs. These begin the names of all parameters of AWS Signature Version 4 and of Google Cloud.
_SIGNED_PREFIXES = ("x-amz-", "x-goog-")
# Names of secrets, in any part of a parameter's name: `csrf_token`, `AccessToken`, `JSESSIONID`.
_SECRET_PARTS = re.compile(
    "token|signature|secret|passw|passphrase|credential|apikey|accesskey|sharedkey|subscriptionkey|authkey|sessionid"
    "|sessid|googleaccessid"
)
# Names of secrets that other words contain too, so only as a word of a parameter's name: `api-key`, but not `keyword`.
# `hdnts` and the like are of Akamai, `oh` and `hm` of image hosts of social networks, `md5` of nginx's secure links.
_SECRET_WORDS = re.compile(
    "auth|authorization|bearer|gda|hdnea|hdntl|hdnts|hm|hmac|jwt|key|login|md5|nonce|oauth|oh|otp|pass|pwd|session|sid"
    "|sig|sign|ticket"
)
# Parameters that belong to a signature, with ordinary names. They are removed if another parameter is removed.
# `expires` and `policy` are of AWS, CloudFront and Google, `se` to `skv` of Azure, and the others of the hosts above.
_COMPANIONS = re.compile(
    "expires|expiry|policy|se|sp|sv|sr|st|sip|spr|ss|srt|ses|skoid|sktid|skt|ske|sks|skv|e|ex|is|oe"
)
# The name of a value: `name=value` in a parameter, or `"name":"value"` in JSON.
_VALUES = re.compile(r"[=:]")
_NOT_IN_NAMES = re.compile(r"[^\w.\[\]-]+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PARAMETER = re.compile(r"([&;]?)([^&;]+)")
# Values that are secrets under any name: the login of a URL, a JSON Web Token, an API key of Match, and imgix's `s`.
_SECRET_VALUES = re.compile(
    r"\b[a-z][a-z0-9+.-]{0,30}:/+[^/?#]*@|\beyJ[\w-]{8,}\.[\w-]|\bmatch_[\w-]{43}|\As=[0-9a-f]{32,}\Z", re.IGNORECASE
)
# A parameter without a name is kept only if it is too short for a secret, as in `/cat.jpg?2026`.
_LONGEST_NAMELESS = 16


def source_url(url: str) -> str | None:
    """Return the URL in canonical form without its secrets; None if it is invalid or its path contains a secret.

    Parameters that belong to a signature are removed with it. Encodings, also repeated, hide no name.

    >>> source_url("https://cdn.example.org/cat.jpg?width=640&sig=c2VjcmV0&se=2026-03-01#top")
    'https://cdn.example.org/cat.jpg?width=640'
    """
    try:
        target = read_url(url)
    except FetchError:
        return None
    path, _, query = target.path.partition("?")
    if _is_secret(path):
        return None
    host = f"[{target.host}]" if ":" in target.host else target.host
    port = "" if target.port == DEFAULT_PORTS[target.scheme] else f":{target.port}"
    kept = _without_secrets(query)
    return f"{target.scheme}://{host}{port}{path}" + (f"?{kept}" if kept else "")


def _without_secrets(query: str) -> str:
    parameters = [(match[1], match[2]) for match in _PARAMETER.finditer(query)]
    kept = [(separator, text) for separator, text in parameters if not (_is_secret(text) or _is_nameless(text))]
    if len(kept) < len(parameters):
        kept = [(separator, text) for separator, text in kept if not _COMPANIONS.fullmatch(_name(text))]
    return "".join(separator + text for separator, text in kept).lstrip("&;")


def _is_secret(text: str) -> bool:
    """Return whether the text contains a secret or the name of one, also after any number of decodings."""
    while not _shows_secret(text):
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def _shows_secret(text: str) -> bool:
    *before_values, _ = _VALUES.split(text)
    names = (_NOT_IN_NAMES.split(part.rstrip("\"' "))[-1] for part in before_values)
    return any(map(_names_secret, names)) or _SECRET_VALUES.search(text) is not None


def _names_secret(name: str) -> bool:
    """Return whether a secret has this name.

    >>> [_names_secret(name) for name in ("AWSAccessKeyId", "apikey", "X-Goog-Date", "keyword", "design")]
    [True, True, True, False, False]
    """
    lower = name.lower()
    words = {word.lower() for word in _WORD.findall(name)} | set(re.split(r"[\W_]+", lower))
    return (
        lower.startswith(_SIGNED_PREFIXES)
        or _SECRET_PARTS.search(re.sub(r"[\W_]+", "", lower)) is not None
        or any(map(_SECRET_WORDS.fullmatch, words))
    )


def _is_nameless(text: str) -> bool:
    return "=" not in text and len(unquote(text)) > _LONGEST_NAMELESS


def _name(parameter: str) -> str:
    return unquote(parameter.partition("=")[0]).lower()
