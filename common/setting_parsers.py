"""Parsers from the text of an environment variable to the value of a setting, one for each kind of value.

A parser raises ValueError for an invalid text. Its message follows the variable's name, and contains no part of the
text that may be a secret.
"""

import ipaddress
import re
import ssl
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from common.net.addresses import AllowedTarget
from common.redis.sentinels import SCHEME, Sentinels

# Longer numbers are rejected here: beyond 4,300 digits int() raises ValueError with a message of its own.
LONGEST_NUMBER = 20
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
# Browsers omit the default port of a scheme: an origin with it would never match.
_DEFAULT_PORT = re.compile(r"http:.*:0*80|https:.*:0*443")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Parse a whole number; underscores may separate groups of digits."""

    def parse(text: str) -> int:
        is_number = len(text) <= LONGEST_NUMBER and re.fullmatch(r"[0-9]+(_[0-9]+)*", text)
        if not is_number or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Parse seconds, with or without a fraction."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not low <= float(text) <= high:
            raise ValueError(f"must be seconds from {low:g} to {high:g}")
        return float(text)

    return parse


def header_value(text: str) -> str:
    """Parse the value of an HTTP header: printable ASCII."""
    if not re.fullmatch(r"[\x20-\x7e]{1,512}", text):
        raise ValueError("must be 1 to 512 printable ASCII characters")
    return text


def host_names(text: str) -> tuple[str, ...]:
    """Parse host names without ports, separated by commas."""
    names = tuple(name.strip().lower() for name in text.split(","))
    if not all(re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name) for name in names):
        raise ValueError("must be host names without ports, separated by commas")
    return names


def one_of(*words: str) -> Callable[[str], str]:
    """Parse one of these words, in exactly this case."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return text

    return parse


def boolean(text: str) -> bool:
    """Parse true, false, 1 or 0, in any case."""
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError("must be true or false")
    return words[text.lower()]


def log_level(text: str) -> str:
    """Parse a level of the log, in any case."""
    return one_of("debug", "info", "warning", "error")(text.lower())


def host(text: str) -> str:
    """Parse an address or a host name; an IPv6 address gets its brackets."""
    if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", text):
        raise ValueError("must be an address or a host name")
    return f"[{text}]" if ":" in text else text


def redis_url(text: str) -> str:
    """Parse the URL of one Redis, or of its Sentinels."""
    if text.startswith(f"{SCHEME}://"):
        try:
            Sentinels.parse(text)
        except ValueError as error:
            raise ValueError("must look like sentinel://host:26379,host:26379/service/0") from error
        return text
    parts = _split_url(text, "redis", "rediss")
    if parts is None or not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path):
        raise ValueError("must look like redis://host:6379/0")
    return text


def uploads_url(text: str) -> str:
    """Parse the URL of a folder, or of a Redis."""
    if not text.startswith("file:"):
        return redis_url(text)
    if not re.fullmatch(r"file:///[^?#%]+", text):
        raise ValueError("must look like file:///path/to/a/folder")
    return text


def store_url(text: str) -> str:
    """Parse the URL of the embedded store; an index server has a setting of its own."""
    if not text.startswith("sqlite:///") or len(text) == len("sqlite:///"):
        raise ValueError("must look like sqlite:///path/to/match.db")
    return text


def elasticsearch_url(text: str) -> str:
    """Parse URLs separated by commas; one without a scheme is http, as in dsys/match."""
    urls = [one.strip() if "://" in one else f"http://{one.strip()}" for one in text.split(",")]
    parts = [_split_url(url, "http", "https") for url in urls]
    if None in parts:
        raise ValueError("must look like http://host:9200 (several: separated by commas)")
    if len({(part.username, part.password) for part in parts if part and part.username}) > 1:
        raise ValueError("must have one user and one password for all hosts")
    return ",".join(urls)


def elasticsearch_api_key(text: str) -> str:
    """Parse a key in the encoded form that Elasticsearch returns, base64 of id:key."""
    if not re.fullmatch(r"[A-Za-z0-9+/_-]+={0,2}", text):
        raise ValueError("must be an API key in its encoded form (base64)")
    return text


def aws_region(text: str) -> str:
    """Parse the name of a region; the library that signs requests must be installed."""
    if not re.fullmatch(r"[a-z]{2,8}(-[a-z]{1,16}){1,3}-[0-9]{1,2}", text):
        raise ValueError("must be the name of an AWS region such as us-east-1")
    if find_spec("botocore") is None:
        raise ValueError("needs botocore: pip install -r requirements/aws.txt")
    return text


def aws_service(text: str) -> str:
    """Parse the name of a service in a signature."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", text):
        raise ValueError("must be the name of an AWS service such as es")
    return text


def ca_file(text: str) -> Path:
    """Parse the path of a file of certificates. The file is loaded once as a check."""
    try:
        ssl.create_default_context(cafile=text)
    except OSError as error:
        raise ValueError("must be a readable file of CA certificates (PEM)") from error
    return Path(text)


def index_name(text: str) -> str:
    """Parse a name that the index server accepts for an alias."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,199}", text):
        raise ValueError("must be a lower-case index name")
    return text


def replicas(text: str) -> str:
    """Parse a number of replicas, or a range for `auto_expand_replicas`."""
    match = re.fullmatch(r"([0-9]{1,2})(?:-([0-9]{1,2}|all))?", text)
    if match is None or (match[2] not in {None, "all"} and int(match[1]) > int(match[2])):
        raise ValueError("must be a number such as 1, or a range such as 0-1")
    return text


def rate_limit(text: str) -> str:
    """Parse limits such as 100/second, separated by semicolons."""
    limit = r"[1-9][0-9]{0,8}/(second|minute|hour|day)"
    if not re.fullmatch(rf"{limit}( ?; ?{limit})*", text):
        raise ValueError("must look like 100/second;5000/hour")
    return text


def origins(text: str) -> tuple[str, ...]:
    """Parse origins separated by commas, in the form of browsers: lower case, without the default port."""
    entries = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    for origin in entries:
        if not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin):
            raise ValueError("must be origins such as https://app.example.org, separated by commas; * is not accepted")
    return entries


def allowed_targets(text: str) -> tuple[AllowedTarget, ...]:
    """Parse hosts and networks separated by commas, each with an optional port."""
    return tuple(AllowedTarget.parse(entry.strip()) for entry in text.split(",") if entry.strip())


def collector_url(text: str) -> str:
    """Parse the URL of a collector of traces, without a password: the exporter's log may contain the URL."""
    parts = _split_url(text, "http", "https")
    if parts is None or "@" in parts.netloc:
        raise ValueError("must look like http://collector:4318")
    return text


def image_url_template(text: str) -> str:
    """Parse the URL of an image with `{filepath}` in its path or query."""
    parts = _split_url(text, "http", "https")
    if parts is None or "@" in parts.netloc or text.count("{filepath}") != 1:
        raise ValueError("must look like https://images.example.org/{filepath}")
    return text


def _split_url(text: str, *schemes: str) -> SplitResult | None:
    """Return the parts of a URL that all clients parse alike, or None; an exception could contain a password."""
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)) or not re.fullmatch(r"[!-~]+", text):
        return None
    try:
        parts = urlsplit(text)
        netloc = re.fullmatch(r"(?:\[(.+)\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", parts.netloc.rpartition("@")[2])
        if netloc is None or parts.port == 0:
            return None
        if netloc[1]:
            ipaddress.IPv6Address(netloc[1])
    except ValueError:
        return None
    return None if parts.query or parts.fragment else parts
