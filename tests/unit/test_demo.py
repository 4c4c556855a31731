"""The demo, a client of the API."""

from pathlib import Path

import pytest
import requests

from examples.demo import DemoError, Match, curl_command, default_url, keep


@pytest.mark.parametrize(("key", "sent"), [("match_abc", "Bearer match_abc"), (None, None), ("", None)])
def test_demo_sends_its_key(key: str | None, sent: str | None) -> None:
    match = Match("http://127.0.0.1:8888/", key=key)

    request = match._session.prepare_request(requests.Request("GET", match.url))

    assert request.headers.get("Authorization") == sent


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8888"),
        ({"PORT": "28310", "MATCH_API_HOST": "0.0.0.0"}, "http://127.0.0.1:28310"),  # noqa: S104 - not listened on
        ({"MATCH_API_HOST": "::1"}, "http://[::1]:8888"),
    ],
)
def test_demo_uses_the_address_of_make_dev(environ: dict[str, str], url: str) -> None:
    assert default_url(environ) == url


def test_curl_command_does_not_contain_the_key() -> None:
    keyed = curl_command(Match("http://127.0.0.1:8888", key="match_abc"), Path("a.jpg"))
    keyless = curl_command(Match("http://127.0.0.1:8888", key=None), Path("a.jpg"))

    assert keyed.startswith('curl -H "Authorization: Bearer $KEY" -F image=@a.jpg ')
    assert "match_abc" not in keyed
    assert keyless.startswith("curl -F image=@a.jpg ")


def test_unusable_home_is_reported_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DemoError, match=r"^MATCH_HOME .*file is not a usable folder"):
        keep(b"", tmp_path / "file", "copy.jpg")
