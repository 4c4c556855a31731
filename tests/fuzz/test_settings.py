"""Arbitrary settings: each is valid, or rejected by a line that names the setting without its secrets."""

from collections.abc import Callable
from dataclasses import fields

from hypothesis import strategies as st
from kombu import Connection

from common.config import Settings
from common.errors import ConfigError
from common.queue.broker import queue_settings
from common.redis.client import connect
from common.store.elastic.connection import Connection as ElasticConnection
from common.store.elastic.connection import split_url

Fuzz = Callable[..., None]

SECRET = "s3cr3t"  # noqa: S105 - looked for in errors
NAMES = {spec.metadata["name"]: spec.name for spec in fields(Settings)}
words = st.sampled_from(
    (
        "",
        "0",
        "1",
        "-1",
        "1_0",
        "٣",
        "1e9",
        "9" * 30,
        "true",
        "a",
        "..",
        "/",
        "1.5",
        "1-0",
        "0-all",
        "hnsw",
        "[",
        "]",
        "10.0.0.0/8",
        "a:1",
        "[::1]:80",
        "\x00",
        "\ud800",
    )
)
texts = words | st.text(max_size=12) | st.builds("{}{}".format, words, words)
schemes = st.sampled_from(
    (
        "redis://",
        "rediss://",
        "sentinel://",
        "http://",
        "https://",
        "file://",
        "file:///",
        "sqlite:///",
        "",
        "unix://",
        "REDIS://",
    )
)
logins = st.sampled_from(("", f":{SECRET}@", f"me:{SECRET}@", f"me:{SECRET}%40@", f"{SECRET}@", "@", ":@"))
hosts = st.sampled_from(
    ("a", "a.lan", "[::1]", "[", "]", "[::1", "127.0.0.1", "a,b", "a:1,b:2", "a,[::1]", "", "ä", " ", "%")
) | st.text(max_size=6)
ports = st.sampled_from(("", ":", ":6379", ":0", ":65536", ":x", ":٣", ":-1", ":99999999"))
paths = (
    st.sampled_from(
        (
            "",
            "/",
            "/0",
            "/16",
            "/x",
            "/main",
            "/main/0",
            "/main/x",
            "/0?a=b",
            "/0#f",
            "?sentinel_password=x",
            "/main/0?sentinel_password=x",
            "//",
            "/..",
        )
    )
    | texts
)
urls = st.builds("{}{}{}{}{}".format, schemes, logins, hosts, ports, paths)


def test_settings(fuzz: Fuzz) -> None:
    def check(environment: dict[str, str]) -> None:
        try:
            settings = Settings.from_env(environment)
        except ConfigError as error:
            assert str(error).partition(" ")[0] in NAMES
            assert "\n" not in str(error)
        else:
            assert repr(settings)

    fuzz(st.dictionaries(st.sampled_from(sorted(NAMES)), texts | urls, max_size=4), check, short=500, long=6_000)


def test_urls_of_redis(fuzz: Fuzz) -> None:
    """A valid URL configures the clients of Redis and of the broker."""

    def check(url: str) -> None:
        try:
            settings = Settings.from_env({"REDIS_URL": url})
        except ConfigError as error:
            assert SECRET not in str(error)
            return
        with Connection(queue_settings(settings.redis_url)["broker_url"].partition(";")[0]) as queue:
            assert queue.hostname
        connect(settings.redis_url).close()

    fuzz(urls, check, short=300, long=3_000)


def test_urls_of_elasticsearch(fuzz: Fuzz) -> None:
    """A valid URL configures the client of Elasticsearch."""

    def check(url: str) -> None:
        try:
            settings = Settings.from_env({"ELASTICSEARCH_URL": url})
        except ConfigError as error:
            assert SECRET not in str(error)
            return
        hosts, _ = split_url(settings.elasticsearch_url)
        assert SECRET not in "".join(hosts)
        ElasticConnection(settings.elasticsearch_url, index="images", timeout_s=1).close()

    fuzz(urls, check, short=200, long=3_000)
