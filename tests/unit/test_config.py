"""Settings: their defaults, formats and errors."""

import sys
from dataclasses import fields

import certifi
import pytest

from common.config import REMOVED, RENAMED, Settings
from common.errors import ConfigError
from common.net.addresses import AllowedTarget


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_env({})

    assert (settings.port, settings.worker_count, settings.elasticsearch_index) == (8888, 4, "images")
    assert settings.elasticsearch_url == "http://elasticsearch:9200"
    assert settings.all_orientations is True


def test_an_api_without_keys_listens_on_loopback_by_default() -> None:
    assert Settings.from_env({}).listens_on == "127.0.0.1"
    assert Settings.from_env({"MATCH_API_KEYS_FILE": "keys.toml"}).listens_on == "0.0.0.0"  # noqa: S104 - the default of a container
    assert Settings.from_env({"MATCH_API_HOST": "::"}).listens_on == "[::]"


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_env({"PORT": "", "MATCH_STORE_URL": " "}) == Settings.from_env({})


def test_an_elasticsearch_url_without_a_scheme_is_http() -> None:
    assert Settings.from_env({"ELASTICSEARCH_URL": "es.lan:9201"}).elasticsearch_url == "http://es.lan:9201"


def test_several_elasticsearch_hosts_are_separated_by_commas() -> None:
    settings = Settings.from_env({"ELASTICSEARCH_URL": "https://me:s%40fe@one.lan, two.lan:9201"})

    assert settings.elasticsearch_url == "https://me:s%40fe@one.lan,http://two.lan:9201"


def test_error_for_api_key_and_password_contains_neither() -> None:
    with pytest.raises(ConfigError, match=r"^MATCH_ELASTICSEARCH_API_KEY ") as raised:
        Settings.from_env({"ELASTICSEARCH_URL": "http://me:geheim@es.lan", "MATCH_ELASTICSEARCH_API_KEY": "c2VjcmV0"})

    assert "geheim" not in str(raised.value)
    assert "c2VjcmV0" not in str(raised.value)


def test_a_ca_file_without_https_is_refused() -> None:
    urls = "https://one.lan:9200,two.lan:9200"

    with pytest.raises(ConfigError, match=r"^MATCH_ELASTICSEARCH_CA_FILE needs https"):
        Settings.from_env({"ELASTICSEARCH_URL": urls, "MATCH_ELASTICSEARCH_CA_FILE": certifi.where()})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MATCH_ELASTICSEARCH_API_KEY", "c2VjcmV0"),
        ("ELASTICSEARCH_URL", "https://me:c2VjcmV0@es.lan"),
        ("REDIS_URL", "redis://:c2VjcmV0@redis.lan:6379/0"),
        ("REDIS_URL", "sentinel://one.lan/main?sentinel_password=c2VjcmV0"),
        ("MATCH_UPLOADS_URL", "redis://:c2VjcmV0@redis.lan:6379/1"),
    ],
)
def test_no_secret_is_shown_with_the_settings(name: str, value: str) -> None:
    assert "c2VjcmV0" not in repr(Settings.from_env({name: value}))


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_former_name_of_a_setting_is_rejected(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=f"^{old} was renamed: set {new} instead$"):
        Settings.from_env({old: "500"})


def test_former_name_without_a_value_is_ignored() -> None:
    assert Settings.from_env(dict.fromkeys(RENAMED, "")) == Settings.from_env({})


def test_every_former_name_has_a_current_one() -> None:
    assert set(RENAMED.values()) <= {spec.metadata["name"] for spec in fields(Settings)}


@pytest.mark.parametrize("replicas", ["0", "2", "0-1", "1-all"])
def test_replicas_are_a_number_or_a_range(replicas: str) -> None:
    assert Settings.from_env({"MATCH_ELASTICSEARCH_REPLICAS": replicas}).elasticsearch_replicas == replicas


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("WORKER_COUNT", "-1"),
        ("WORKER_COUNT", "1.5"),
        ("WORKER_COUNT", "٣"),
        ("ALL_ORIENTATIONS", "yes"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "redis://localhost:99999/0"),
        ("REDIS_URL", "redis://localhost:abc/0"),
        ("REDIS_URL", "redis://localhost:6379/abc"),
        ("REDIS_URL", "redis://localhost:6379/0?socket_timeout=x"),
        ("REDIS_URL", "sentinel://one.lan,two.lan"),
        ("REDIS_URL", "sentinel://one.lan:port/main"),
        ("ELASTICSEARCH_URL", "http://localhost:99999"),
        ("MATCH_UPLOADS_URL", "file://relative/path"),
        ("MATCH_UPLOADS_URL", "file:///"),
        ("MATCH_UPLOADS_URL", "s3://bucket"),
        ("MATCH_UPLOADS_URL", "/var/uploads"),
        ("MATCH_STORE_URL", "postgres://localhost"),
        ("MATCH_STORE_URL", "sqlite:///"),
        ("ELASTICSEARCH_URL", "ftp://localhost"),
        ("ELASTICSEARCH_URL", "http://one.lan,"),
        ("ELASTICSEARCH_URL", "http://one.lan:http"),
        ("ELASTICSEARCH_URL", "http://a:b@one.lan,http://c:d@two.lan"),
        ("ELASTICSEARCH_URL", "http://one lan"),
        ("ELASTICSEARCH_URL", "http://one[::1]:80"),
        ("ELASTICSEARCH_URL", "http://one.lan/?pretty"),
        ("REDIS_URL", "REDIS://localhost"),
        ("REDIS_URL", "redis://[1:2]/0"),
        ("REDIS_URL", "redis://:pass#word@localhost/0"),
        ("MATCH_ELASTICSEARCH_API_KEY", "id:key"),
        ("MATCH_ELASTICSEARCH_AWS_REGION", "eu"),
        ("MATCH_ELASTICSEARCH_AWS_REGION", "https://eu-central-1"),
        ("MATCH_ELASTICSEARCH_AWS_SERVICE", "es/aws4"),
        ("MATCH_ELASTICSEARCH_CA_FILE", "/nowhere/ca.pem"),
        ("MATCH_ELASTICSEARCH_CA_FILE", __file__),
        ("MATCH_ELASTICSEARCH_SHARDS", "0"),
        ("MATCH_ELASTICSEARCH_REPLICAS", "2-1"),
        ("MATCH_ELASTICSEARCH_REPLICAS", "all"),
        ("MATCH_ELASTICSEARCH_REFRESH_INTERVAL_S", "1s"),
        ("MATCH_INDEX_VECTORS", "tree"),
        ("ELASTICSEARCH_INDEX", "Images"),
        ("ELASTICSEARCH_INDEX", "_all"),
        ("MATCH_FETCH_TIMEOUT_S", "0"),
        ("MATCH_FETCH_TIMEOUT_S", "nan"),
        ("MATCH_FETCH_TIMEOUT_S", "٣"),
        ("MATCH_FETCH_ALLOW", "http://a.org"),
        ("MATCH_FETCH_ALLOW", "10.0.0.0/99"),
        ("MATCH_FETCH_ALLOW", "127.0.0.1:0"),
        ("MATCH_FETCH_ALLOW", "images.lan:65536"),
        ("MATCH_MAX_IMAGE_BYTES", "10MB"),
        ("MATCH_LOG_LEVEL", "loud"),
        ("MATCH_LOG_FORMAT", "xml"),
        ("MATCH_WORKER_METRICS_PORT", "65536"),
        ("MATCH_TRACING_ENDPOINT", "collector:4318"),
        ("MATCH_TRACING_ENDPOINT", "http://me:geheim@collector:4318"),
        ("MATCH_TRACING_ENDPOINT", "http://collector:4318/?key=geheim"),
        ("MATCH_API_HOST", "a b"),
        ("MATCH_RATE_LIMIT", "100"),
        ("MATCH_RATE_LIMIT", "0/second"),
        ("MATCH_RATE_LIMIT", "10/second;"),
        ("MATCH_IMAGE_URL_TEMPLATE", "https://images.example.org/"),
        ("MATCH_IMAGE_URL_TEMPLATE", "https://{filepath}/"),
        ("MATCH_IMAGE_URL_TEMPLATE", "https://user@images.example.org/{filepath}"),
        ("MATCH_CORS_ORIGINS", "*"),
        ("MATCH_CORS_ORIGINS", "app.example.org"),
        ("MATCH_CORS_ORIGINS", "https://app.example.org/"),
        ("MATCH_CORS_ORIGINS", "https://App.example.org"),
        ("MATCH_CORS_ORIGINS", "https://app.example.org:443"),
        ("MATCH_CORS_ORIGINS", "http://[::1]:80"),
        ("MATCH_TRUSTED_PROXIES", "-1"),
        ("MATCH_VISIBILITY_TIMEOUT_S", "0"),
        # Below the maximum duration of a task.
        ("MATCH_VISIBILITY_TIMEOUT_S", "195"),
        # Below the time after which a dead worker's message is delivered again.
        ("MATCH_SWEEP_AFTER_S", "299"),
    ],
)
def test_the_error_for_an_invalid_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} "):
        Settings.from_env({name: value})


@pytest.mark.parametrize("region", ["us-east-1", "ap-southeast-2", "us-gov-west-1", "us-iso-east-1", "cn-north-1"])
def test_region_of_aws_is_accepted(region: str) -> None:
    assert Settings.from_env({"MATCH_ELASTICSEARCH_AWS_REGION": region}).elasticsearch_aws_region == region


@pytest.mark.parametrize(
    "credentials",
    [{"MATCH_ELASTICSEARCH_API_KEY": "aWQ6a2V5"}, {"ELASTICSEARCH_URL": "https://me:secret@search.lan"}],
    ids=["API key", "user and password"],
)
def test_signatures_exclude_other_credentials(credentials: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^MATCH_ELASTICSEARCH_AWS_REGION cannot be combined"):
        Settings.from_env({"MATCH_ELASTICSEARCH_AWS_REGION": "us-east-1"} | credentials)


def test_signatures_without_botocore_name_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)

    with pytest.raises(ConfigError) as error:
        Settings.from_env({"MATCH_ELASTICSEARCH_AWS_REGION": "us-east-1"})

    assert str(error.value) == "MATCH_ELASTICSEARCH_AWS_REGION needs botocore: pip install -r requirements/aws.txt"


@pytest.mark.parametrize(("name", "replacement"), REMOVED.items())
def test_removed_setting_names_its_replacement(name: str, replacement: str) -> None:
    with pytest.raises(ConfigError) as error:
        Settings.from_env({name: "1"})

    assert str(error.value) == f"{name} was removed: {replacement}"
    assert "\n" not in str(error.value)
    assert Settings.from_env({name: ""}) == Settings.from_env({})


@pytest.mark.parametrize("value", ["_", "_80", "8__0", "80_"])
def test_a_number_with_underscores_is_invalid(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^PORT must be a whole number from 1 to 65535$"):
        Settings.from_env({"PORT": value})


def test_a_message_is_lost_after_two_visibility_timeouts() -> None:
    assert Settings.from_env({}).lost_after_s == 600
    assert Settings.from_env({"MATCH_SWEEP_AFTER_S": "300"}).lost_after_s == 300


@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", "127.0.0.1", 9000)),
        ("10.1.0.0/16", ("images.lan", "10.1.2.3", 80)),
        ("10.1.0.0/16:8080", ("images.lan", "10.1.2.3", 8080)),
        ("[::1]:80", ("::1", "::1", 80)),
        ("::1", ("::1", "::1", 9000)),
        ("fd00::/8", ("images.lan", "fd00::1", 80)),
        ("images.lan", ("IMAGES.lan.", "10.9.9.9", 1234)),
        ("images.lan:80", ("images.lan", "10.9.9.9", 80)),
    ],
)
def test_an_allowed_target_allows_the_addresses_it_names(entry: str, allowed: tuple[str, str, int]) -> None:
    assert AllowedTarget.parse(entry).allows(*allowed)


@pytest.mark.parametrize(
    ("entry", "refused"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", "127.0.0.1", 9001)),
        ("10.1.0.0/16", ("images.lan", "10.2.0.1", 80)),
        ("::1", ("localhost", "127.0.0.1", 80)),
        ("images.lan", ("evil.lan", "10.9.9.9", 80)),
        ("images.lan", ("images.lan.evil.org", "10.9.9.9", 80)),
        ("images.lan:80", ("images.lan", "10.9.9.9", 443)),
    ],
)
def test_an_allowed_target_allows_nothing_else(entry: str, refused: tuple[str, str, int]) -> None:
    assert not AllowedTarget.parse(entry).allows(*refused)
