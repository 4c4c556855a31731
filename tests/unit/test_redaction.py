"""Redaction: the parts of URLs that remain in a text."""

import pytest

from common.telemetry.redaction import redact_urls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("from https://a.org/cat.jpg?X-Amz-Signature=abc now", "from https://a.org/cat.jpg?[...] now"),
        ("from https://a.org/cat.jpg#top", "from https://a.org/cat.jpg?[...]"),
        ("('http://me:geheim@a.org:81/x',)", "('http://a.org:81/x',)"),
        ("redis://:geheim@redis:6379/0", "redis://redis:6379/0"),
        ("redis://:p@ss@redis:6379/0", "redis://redis:6379/0"),
        ("redis://:ge/heim@redis:6379/0", "redis://[...]"),
        ("redis://:ge?heim@redis:6379/0", "redis://[...]"),
        ("https://[2001:db8::1]:8443/x?y", "https://[2001:db8::1]:8443/x?[...]"),
        ("http://es.lan:9200.", "http://es.lan:9200."),
        ("http://a.org/'?sig='geheim'&b=\"geheim\"", "http://a.org/'?[...]"),
        ("/search?url=https%3A%2F%2Fme%3Ageheim%40a.org", "/search?[...]"),
        ("url=https%3A%2F%2Fme%3Ageheim%40a.org%2Fx", "[...]"),
        ('"GET /cat.jpg?geheim HTTP/1.1" 200', '"GET /cat.jpg?[...] HTTP/1.1" 200'),
        ("cat.jpg?token=geheim", "cat.jpg?[...]"),
        ("elastic:geheim@es.lan:9200", "[...]@es.lan:9200"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer [...]"),
        ("worker-1@host ready. Is it? Yes", "worker-1@host ready. Is it? Yes"),
        ("image cats/ä cat.jpg at 12:30:01, 100%", "image cats/ä cat.jpg at 12:30:01, 100%"),
    ],
)
def test_a_url_is_shown_without_query_and_userinfo(text: str, shown: str) -> None:
    assert redact_urls(text) == shown
