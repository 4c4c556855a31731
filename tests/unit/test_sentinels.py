"""The URL of a Redis behind Sentinels, as redis-py and kombu get it."""

import pytest

from common.config import Settings
from common.queue.broker import TRANSPORT_OPTIONS, queue_settings
from common.redis.client import connect
from common.redis.sentinels import Sentinels
from common.telemetry.redaction import secrets_of

URL = "sentinel://me:s%40fe@one.lan,[2001:db8::2]:26380/main/1?sentinel_password=other"


def test_a_url_names_sentinels_service_and_login() -> None:
    assert Sentinels.parse(URL) == Sentinels(
        hosts=(("one.lan", 26379), ("2001:db8::2", 26380)),
        service="main",
        db=1,
        username="me",
        password="s@fe",  # noqa: S106 - a password of no server
        sentinel_password="other",  # noqa: S106 - the same
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://one.lan/main",
        "sentinel://one.lan",
        "sentinel://one.lan/",
        "sentinel://one.lan/main/first",
        "sentinel://one.lan,/main",
        "sentinel://one.lan:0/main",
        "sentinel://one.lan:99999/main",
        "sentinel://one.lan/main?password=x",
        "sentinel://one.lan/main?sentinel_password=x&sentinel_password=y",
        "sentinel://one.lan,[2001:db8::2/main",
        "sentinel://one.lan,[2001:db8::2::3]/main",
        "sentinel://one.lan/main#x",
    ],
)
def test_invalid_sentinel_urls_are_rejected(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Sentinels.parse(url)


def test_kombu_gets_the_same_sentinels() -> None:
    settings = queue_settings(URL)

    assert settings["broker_url"] == "sentinel://me:s%40fe@one.lan:26379/1;sentinel://me:s%40fe@[2001:db8::2]:26380/1"
    assert settings["broker_transport_options"]["master_name"] == "main"
    assert settings["broker_transport_options"]["sentinel_kwargs"]["password"] == "other"  # noqa: S105 - the same
    assert "master_name" not in TRANSPORT_OPTIONS


def test_no_password_is_shown() -> None:
    assert "s@fe" not in repr(Sentinels.parse(URL))
    assert "other" not in repr(Sentinels.parse(URL))


def test_client_connects_through_ipv6_sentinels() -> None:
    with connect(URL) as client:
        assert client.get_connection_kwargs()["db"] == 1


def test_passwords_of_ipv6_sentinels_are_redacted() -> None:
    settings = Settings.from_env({"REDIS_URL": URL})

    assert {"s%40fe", "other"} <= {*secrets_of(settings)}
