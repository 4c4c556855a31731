"""The web page's checks and texts, without HTTP."""

import pytest

from api.web.pages import CrossSite, check_site


@pytest.mark.parametrize(
    ("site", "origin"),
    [
        ("cross-site", None),
        ("same-site", "http://match.example.org"),
        (None, "https://other.example.org"),
        (None, "http://match.example.org:8888"),
        (None, "null"),
    ],
)
def test_form_of_another_site_is_rejected(site: str | None, origin: str | None) -> None:
    with pytest.raises(CrossSite):
        check_site(site, origin, "match.example.org")


@pytest.mark.parametrize(
    ("site", "origin"),
    [
        ("same-origin", "https://match.example.org"),
        ("none", None),
        (None, "https://match.example.org"),
        (None, None),
    ],
)
def test_form_of_this_host_is_accepted(site: str | None, origin: str | None) -> None:
    check_site(site, origin, "match.example.org")
