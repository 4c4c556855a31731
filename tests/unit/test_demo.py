"""The demo: a client like any other."""

import pytest
import requests

from examples.demo import Match


@pytest.mark.parametrize(("key", "sent"), [("match_abc", "Bearer match_abc"), (None, None), ("", None)])
def test_the_demo_brings_the_key_that_it_is_given(key: str | None, sent: str | None) -> None:
    match = Match("http://127.0.0.1:8888/", key=key)

    request = match._session.prepare_request(requests.Request("GET", match.url))

    assert request.headers.get("Authorization") == sent
