"""The demo: a client like any other."""

from pathlib import Path

import pytest
import requests

from examples.demo import DemoError, Match, by_hand, default_url, keep


@pytest.mark.parametrize(("key", "sent"), [("match_abc", "Bearer match_abc"), (None, None), ("", None)])
def test_the_demo_brings_the_key_that_it_is_given(key: str | None, sent: str | None) -> None:
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
def test_the_demo_goes_to_the_stack_of_the_same_settings(environ: dict[str, str], url: str) -> None:
    assert default_url(environ) == url


def test_the_command_to_repeat_it_by_hand_names_the_key_without_showing_it() -> None:
    keyed = by_hand(Match("http://127.0.0.1:8888", key="match_abc"), Path("a.jpg"))
    keyless = by_hand(Match("http://127.0.0.1:8888", key=None), Path("a.jpg"))

    assert keyed.startswith('curl -H "Authorization: Bearer $KEY" -F image=@a.jpg ')
    assert "match_abc" not in keyed
    assert keyless.startswith("curl -F image=@a.jpg ")


def test_a_home_that_is_no_folder_is_told_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DemoError, match=r"^MATCH_HOME .*file cannot be used as a folder"):
        keep(b"", tmp_path / "file")
