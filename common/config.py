"""Settings: the only reader of the environment."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from common import setting_parsers as parsers
from common.errors import ConfigError
from common.modes import MODES, Mode
from common.net.addresses import AllowedTarget, is_loopback
from common.net.host_headers import HostHeaders, read_headers_file
from common.net.webhook_signing import read_secrets, read_secrets_file
from common.version import USER_AGENT

MIB = 1024 * 1024
DAY_S = 86_400
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - for containers, and for Prometheus on other machines
# Settings of earlier versions, by what replaces each.
REMOVED = {
    "MATCH_REQUEST_TIMEOUT_S": "the proxy in front times slow clients out: `client_header_timeout`, "
    "`client_body_timeout` and `send_timeout` in proxy/nginx.conf",
}

# Former names of settings. One that is set stops the start with a message that names the new one.
RENAMED = {"MATCH_ELASTICSEARCH_BREADTH": "MATCH_ELASTICSEARCH_NUM_CANDIDATES"}


def _setting(  # noqa: PLR0913 - each describes one property of a setting
    name: str,
    default: object,
    parse: Callable[[str], object],
    meaning: str,
    *,
    secret: bool = False,
    may_hold_password: bool = False,
) -> Any:  # noqa: ANN401 - a field declares the type
    metadata = {"name": name, "parse": parse, "meaning": meaning, "secret": secret}
    return field(default=default, repr=not (secret or may_hold_password), metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, each read once from its environment variable."""

    port: int = _setting("PORT", 8888, parsers.whole(1, 65_535), "TCP port of the API")
    api_host: str | None = _setting(
        "MATCH_API_HOST",
        None,
        parsers.host,
        "address that the API listens on; unset: 127.0.0.1, and 0.0.0.0 where `MATCH_API_KEYS_FILE` is set",
    )
    rate_limit: str | None = _setting(
        "MATCH_RATE_LIMIT",
        None,
        parsers.rate_limit,
        "requests allowed per API key, or per address without one: `100/second;5000/hour`; unset: unlimited",
    )
    trusted_proxies: int = _setting(
        "MATCH_TRUSTED_PROXIES",
        0,
        parsers.whole(0, 10),
        "number of proxies in front whose `X-Forwarded-For` is trusted; 0: none, the peer's address is the client's",
    )
    cors_origins: tuple[str, ...] = _setting(
        "MATCH_CORS_ORIGINS",
        (),
        parsers.origins,
        "origins whose pages may call the API from a browser: `https://app.example.org,https://other.example.org`",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        "MATCH_ALLOWED_HOSTS",
        (),
        parsers.host_names,
        "host names by which an API without keys may be called, beside addresses: `match.lan,match.example.org`; "
        "unset: `localhost` while it listens on loopback without a trusted proxy, else every name",
    )
    api_keys_file: Path | None = _setting(
        "MATCH_API_KEYS_FILE",
        None,
        Path,
        "file of API keys, see [security](security.md); unset: every client may do everything",
    )
    thumbnails_px: int = _setting(
        "MATCH_THUMBNAILS_PX",
        0,
        parsers.whole(0, 256),
        "longer side of the thumbnails that the workers keep; 0: none are kept. `make dev`: 256",
    )
    image_url_template: str | None = _setting(
        "MATCH_IMAGE_URL_TEMPLATE",
        None,
        parsers.image_url_template,
        "where the web page gets stored images: `https://images.example.org/{filepath}`; unset: it shows thumbnails",
    )
    worker_count: int = _setting("WORKER_COUNT", 4, parsers.whole(1, 256), "gunicorn workers of the API")
    api_threads: int = _setting(
        "MATCH_API_THREADS",
        32,
        parsers.whole(4, 256),
        "threads of each gunicorn worker; half as many more download images for searches",
    )
    all_orientations: bool = _setting(
        "ALL_ORIENTATIONS",
        True,
        parsers.boolean,
        "default of a search's `all_orientations`: also find rotated, mirrored and inverted copies",
    )
    search_mode: Mode = _setting(
        "MATCH_SEARCH_MODE",
        "auto",
        parsers.one_of(*MODES),
        "default of `mode` in searches and comparisons: `fast`, `auto` or `thorough` ([matching](matching.md#modes))",
    )
    max_search_lines: int = _setting(
        "MATCH_MAX_SEARCH_LINES",
        1000,
        parsers.whole(1, 100_000),
        "maximum lines of a `/search/batch`; more are a 413",
    )
    max_search_batch_bytes: int = _setting(
        "MATCH_MAX_SEARCH_BATCH_BYTES",
        8 * MIB,
        parsers.whole(1024, 256 * MIB),
        "maximum size of the body of a `/search/batch`; more is a 413",
    )
    max_search_batch_s: float = _setting(
        "MATCH_MAX_SEARCH_BATCH_S",
        60.0,
        parsers.seconds(0.1, 600),
        "time after which a `/search/batch` begins no further line; the others have a `retry_after`",
    )
    local_features: bool = _setting(
        "MATCH_LOCAL_FEATURES",
        True,
        parsers.boolean,
        "whether adds store local features and searches use them; false: every mode is `fast`",
    )
    local_features_max_images: int = _setting(
        "MATCH_LOCAL_FEATURES_MAX_IMAGES",
        5_000_000,
        parsers.whole(0, 1_000_000_000),
        "images in a collection above which `auto` is `fast`",
    )
    local_features_searches: int | None = _setting(
        "MATCH_LOCAL_FEATURES_SEARCHES",
        None,
        parsers.whole(1, 256),
        "searches and comparisons that use local features at once, in each gunicorn worker; others receive a 503; "
        "unset: a quarter of `MATCH_API_THREADS`",
    )
    redis_url: str = _setting(
        "REDIS_URL",
        "redis://localhost:6379/0",
        parsers.redis_url,
        "Redis: queue, ledger and uploads; behind Sentinels: `sentinel://host:26379,host:26379/service/0`",
        may_hold_password=True,
    )
    uploads_url: str | None = _setting(
        "MATCH_UPLOADS_URL",
        None,
        parsers.uploads_url,
        "storage of uploads: `redis://host:6379/0`, or `file:///path` for a folder that API and workers share; "
        "unset: the Redis of `REDIS_URL`",
        may_hold_password=True,
    )
    store_url: str | None = _setting(
        "MATCH_STORE_URL", None, parsers.store_url, "`sqlite:///path` for the embedded store; unset: an index server"
    )
    elasticsearch_url: str = _setting(
        "ELASTICSEARCH_URL",
        "http://elasticsearch:9200",
        parsers.elasticsearch_url,
        "index server, Elasticsearch or OpenSearch: one host or several, separated by commas; "
        "`https://user:password@host:9200` works; without a scheme: http; without a port: 9200, of https 443",
        may_hold_password=True,
    )
    elasticsearch_api_key: str | None = _setting(
        "MATCH_ELASTICSEARCH_API_KEY",
        None,
        parsers.elasticsearch_api_key,
        "API key of Elasticsearch in its encoded form, instead of user and password",
        secret=True,
    )
    elasticsearch_aws_region: str | None = _setting(
        "MATCH_ELASTICSEARCH_AWS_REGION",
        None,
        parsers.aws_region,
        "region of a domain of [Amazon OpenSearch Service](opensearch.md#amazon-opensearch-service); if set, requests "
        "are signed with AWS credentials; requires `requirements/aws.txt`",
    )
    elasticsearch_aws_service: str = _setting(
        "MATCH_ELASTICSEARCH_AWS_SERVICE", "es", parsers.aws_service, "AWS service that requests are signed for"
    )
    elasticsearch_ca_file: Path | None = _setting(
        "MATCH_ELASTICSEARCH_CA_FILE",
        None,
        parsers.ca_file,
        "CA certificates (PEM) that verify the index server's",
    )
    elasticsearch_index: str = _setting(
        "ELASTICSEARCH_INDEX", "images", parsers.index_name, "name of the index's alias"
    )
    elasticsearch_doc_type: str | None = _setting(
        "ELASTICSEARCH_DOC_TYPE", None, str, "accepted for compatibility with dsys/match, without effect"
    )
    elasticsearch_timeout_s: float = _setting(
        "MATCH_ELASTICSEARCH_TIMEOUT_S", 20.0, parsers.seconds(0.1, 600), "time-out of one request to the index server"
    )
    elasticsearch_shards: int = _setting(
        "MATCH_ELASTICSEARCH_SHARDS", 1, parsers.whole(1, 1024), "shards of a new index; `make reindex` makes one"
    )
    elasticsearch_replicas: str = _setting(
        "MATCH_ELASTICSEARCH_REPLICAS",
        "0-1",
        parsers.replicas,
        "replicas of each shard of a new index: a number, or a range such as `0-1` (`auto_expand_replicas`); for three "
        "zones with standby `2`",
    )
    elasticsearch_refresh_interval_s: float = _setting(
        "MATCH_ELASTICSEARCH_REFRESH_INTERVAL_S",
        1.0,
        parsers.seconds(0.1, 3600),
        "`refresh_interval` of a new index: searches find a written record after at most this time",
    )
    elasticsearch_num_candidates: int | None = _setting(
        "MATCH_ELASTICSEARCH_NUM_CANDIDATES",
        None,
        parsers.whole(1, 10_000),
        "`num_candidates` per shard for HNSW searches. Higher values raise recall and latency; unset: by the sizes of "
        "the index's segments",
    )
    index_vectors: Literal["hnsw", "flat"] = _setting(
        "MATCH_INDEX_VECTORS",
        "hnsw",
        parsers.one_of("hnsw", "flat"),
        "vectors of a new index: `hnsw` is approximate and fast at any size, `flat` is exact but slower as it grows",
    )
    home: Path = _setting("MATCH_HOME", Path(".match"), Path, "folder for all files of `make dev`")
    max_image_bytes: int = _setting(
        "MATCH_MAX_IMAGE_BYTES",
        64 * MIB,
        parsers.whole(1, 1024 * MIB),
        "maximum size of an image, uploaded or downloaded",
    )
    max_bytes_in_flight: int = _setting(
        "MATCH_MAX_BYTES_IN_FLIGHT",
        256 * MIB,
        parsers.whole(1, 1024**4),
        "maximum bytes of images in the memory of a process, beside its decoders; uploads wait on disk, downloads "
        "before they begin",
    )
    max_image_pixels: int = _setting(
        "MATCH_MAX_IMAGE_PIXELS",
        50_000_000,
        parsers.whole(1, 1_000_000_000),
        "maximum size of an image, except baseline JPEGs",
    )
    max_jpeg_pixels: int = _setting(
        "MATCH_MAX_JPEG_PIXELS",
        200_000_000,
        parsers.whole(1, 1_000_000_000),
        "maximum size of a baseline JPEG, which is decoded as a draft",
    )
    jpeg_draft_px: int = _setting(
        "MATCH_JPEG_DRAFT_PX",
        1024,
        parsers.whole(0, 65_535),
        "an image whose sides are at least twice this is reduced to a half, a quarter or an eighth; 0: never",
    )
    decode_timeout_s: float = _setting(
        "MATCH_DECODE_TIMEOUT_S", 30.0, parsers.seconds(1, 600), "maximum time to decode one image"
    )
    decode_memory_bytes: int = _setting(
        "MATCH_DECODE_MEMORY_BYTES",
        640 * MIB,
        parsers.whole(64 * MIB, 1024**5),
        "maximum memory to decode one image, beside that of the idle decoder process; Linux only",
    )
    fetch_timeout_s: float = _setting(
        "MATCH_FETCH_TIMEOUT_S",
        15.0,
        parsers.seconds(0.1, 100),
        "total time of one download, including redirects and retries",
    )
    keep_source_url: bool = _setting(
        "MATCH_KEEP_SOURCE_URL",
        True,
        parsers.boolean,
        "whether the store keeps the URL of an image added by URL, without its [secrets](security.md#source-urls)",
    )
    fetch_allow: tuple[AllowedTarget, ...] = _setting(
        "MATCH_FETCH_ALLOW",
        (),
        parsers.allowed_targets,
        "private hosts or networks that may be fetched from, each with an optional port",
    )
    fetch_user_agent: str = _setting(
        "MATCH_FETCH_USER_AGENT",
        USER_AGENT,
        parsers.header_value,
        "`User-Agent` of downloads and webhooks; name yourself and an address, so that hosts can reach you",
    )
    fetch_headers: HostHeaders | None = _setting(
        "MATCH_FETCH_HEADERS_FILE",
        None,
        read_headers_file,
        "file of headers by host for downloads, see [security](security.md#headers-of-downloads)",
        secret=True,
    )
    fetch_honour_robots_tag: bool = _setting(
        "MATCH_FETCH_HONOUR_ROBOTS_TAG",
        False,
        parsers.boolean,
        "whether an image is refused whose host sends `X-Robots-Tag: noindex`, `none`, `noai` or `noimageai`",
    )
    max_backlog: int = _setting(
        "MATCH_MAX_BACKLOG",
        1_000_000,
        parsers.whole(1, 1_000_000_000),
        "number of open tasks at which /add returns 503",
    )
    max_collections: int = _setting(
        "MATCH_MAX_COLLECTIONS",
        10_000,
        parsers.whole(1, 1_000_000),
        "number of collections at which no further one is created",
    )
    max_redis_percent: int = _setting(
        "MATCH_MAX_REDIS_PERCENT", 80, parsers.whole(1, 99), "percentage of Redis's maxmemory at which /add returns 503"
    )
    max_uploads_bytes: int = _setting(
        "MATCH_MAX_UPLOADS_BYTES",
        2048 * MIB,
        parsers.whole(1, 1024**5),
        "bytes of stored uploads at which /add accepts no more; those of failed tasks, kept for a retry, count",
    )
    failed_keep_s: int = _setting(
        "MATCH_FAILED_KEEP_S",
        7 * DAY_S,
        parsers.whole(60, 3650 * DAY_S),
        "how long failed tasks, their uploads and deletions are kept",
    )
    finished_keep_s: int = _setting(
        "MATCH_FINISHED_KEEP_S", DAY_S, parsers.whole(60, 365 * DAY_S), "how long other finished tasks are kept"
    )
    webhook_secret: tuple[str, ...] = _setting(
        "MATCH_WEBHOOK_SECRET",
        (),
        read_secrets,
        "secrets that sign callbacks, `whsec_…`, separated by commas; required for `callback_url`, on API and workers; "
        "see [webhooks](webhooks.md)",
        secret=True,
    )
    webhook_secret_file: tuple[str, ...] = _setting(
        "MATCH_WEBHOOK_SECRET_FILE",
        (),
        read_secrets_file,
        "file of the secrets, one per line, instead of `MATCH_WEBHOOK_SECRET`",
        secret=True,
    )
    webhook_keep_s: int = _setting(
        "MATCH_WEBHOOK_KEEP_S",
        DAY_S,
        parsers.whole(60, 30 * DAY_S),
        "how long a failed callback is retried",
    )
    webhook_timeout_s: float = _setting(
        "MATCH_WEBHOOK_TIMEOUT_S", 10.0, parsers.seconds(0.1, 60), "total time of one attempt of a callback"
    )
    max_callbacks_bytes: int = _setting(
        "MATCH_MAX_CALLBACKS_BYTES",
        256 * MIB,
        parsers.whole(1, 1024**5),
        "bytes of callbacks waiting in Redis, at most a quarter for one receiver; more are dropped",
    )
    worker_threads: int = _setting(
        "MATCH_WORKER_THREADS", 32, parsers.whole(1, 1024), "tasks that a worker process runs at once"
    )
    bulk_records: int = _setting(
        "MATCH_BULK_RECORDS", 200, parsers.whole(1, 10_000), "maximum records in one bulk write"
    )
    bulk_linger_s: float = _setting(
        "MATCH_BULK_LINGER_S", 0.05, parsers.seconds(0, 5), "maximum wait for a bulk write to fill up"
    )
    store_hold_s: float = _setting(
        "MATCH_STORE_HOLD_S", 120.0, parsers.seconds(0, 150), "how long a task waits while the store is unavailable"
    )
    visibility_timeout_s: float = _setting(
        "MATCH_VISIBILITY_TIMEOUT_S",
        300.0,
        parsers.seconds(1, 3600),
        "time after which an unacknowledged message is delivered again, if no worker found the death of its worker "
        "before; must exceed the longest task",
    )
    stop_within_s: float = _setting(
        "MATCH_STOP_WITHIN_S",
        55.0,
        parsers.seconds(1, 3600),
        "maximum time from SIGTERM to the end of a worker",
    )
    sweep_after_s: float | None = _setting(
        "MATCH_SWEEP_AFTER_S",
        None,
        parsers.seconds(1, DAY_S),
        "age at which a task without a message is enqueued again; unset: twice `MATCH_VISIBILITY_TIMEOUT_S`",
    )
    sweep_batch: int = _setting(
        "MATCH_SWEEP_BATCH",
        2000,
        parsers.whole(1, 1_000_000),
        "maximum tasks that one pass enqueues again; there are ten passes in each `MATCH_VISIBILITY_TIMEOUT_S`",
    )
    fetch_per_host: int = _setting(
        "MATCH_FETCH_PER_HOST",
        0,
        parsers.whole(0, 100_000),
        "maximum concurrent downloads from one host, over all workers; 0: unlimited",
    )
    fetch_retry_for_s: float = _setting(
        "MATCH_FETCH_RETRY_FOR_S",
        3600.0,
        parsers.seconds(0, DAY_S),
        "how long temporary faults of a host are retried, from the first one of a task; 0: the task fails at once",
    )
    max_wait_s: float = _setting("MATCH_MAX_WAIT_S", 60.0, parsers.seconds(0, 600), "maximum `wait` of an add")
    log_level: str = _setting("MATCH_LOG_LEVEL", "info", parsers.log_level, "log level")
    log_format: Literal["json", "text"] = _setting(
        "MATCH_LOG_FORMAT",
        "json",
        parsers.one_of("json", "text"),
        "format of log lines: `json`, or `text` for people, as in `make dev`",
    )
    worker_metrics_host: str = _setting(
        "MATCH_WORKER_METRICS_HOST",
        ALL_ADDRESSES,
        parsers.host,
        "address that a worker's `/metrics` listens on",
    )
    worker_metrics_port: int = _setting(
        "MATCH_WORKER_METRICS_PORT", 0, parsers.whole(0, 65_535), "TCP port of a worker's own `/metrics`; 0: none"
    )
    tracing_endpoint: str | None = _setting(
        "MATCH_TRACING_ENDPOINT",
        None,
        parsers.collector_url,
        "collector of traces, by OTLP over HTTP: `http://collector:4318`; requires `requirements/tracing.txt`",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read every setting; an empty variable counts as unset.

        Raises ConfigError for the first variable that has an invalid value, or a former name.
        """
        environ = os.environ if environ is None else environ
        for name, replacement in REMOVED.items():
            if environ.get(name, "").strip():
                raise ConfigError(f"{name} was removed: {replacement}")
        for old, new in RENAMED.items():
            if environ.get(old, "").strip():
                message = f"{old} was renamed: set {new} instead"
                raise ConfigError(message)
        values = {}
        for spec in fields(cls):
            name = spec.metadata["name"]
            if text := environ.get(name, "").strip():
                try:
                    values[spec.name] = spec.metadata["parse"](text)
                except ValueError as error:
                    message = f"{name} {error}"
                    raise ConfigError(message) from error
        settings = cls(**values)
        settings._check_combinations()
        return settings

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that sign callbacks; empty if callbacks are disabled."""
        return self.webhook_secret or self.webhook_secret_file

    @property
    def download_threads(self) -> int:
        """The threads of an API process for downloads of searches, beside its other threads."""
        return self.api_threads // 2

    @property
    def lost_after_s(self) -> float:
        """The age in seconds at which a missing message is lost: that of a dead worker is redelivered earlier."""
        return 2 * self.visibility_timeout_s if self.sweep_after_s is None else self.sweep_after_s

    @property
    def own_hosts(self) -> tuple[str, ...] | None:
        """The host names of an API without keys, beside addresses; None: every name."""
        is_local = is_loopback(self.listens_on.strip("[]")) and not self.trusted_proxies
        return self.allowed_hosts or (("localhost",) if is_local else None)

    @property
    def listens_on(self) -> str:
        """The address that the API listens on: without API keys only this machine, unless the setting names another."""
        return self.api_host or (ALL_ADDRESSES if self.api_keys_file else "127.0.0.1")

    @property
    def longest_task_s(self) -> float:
        """The longest duration of a task, in seconds."""
        # The image waits for a decoder for as long as it may then be decoded.
        return self.fetch_timeout_s + 2 * self.decode_timeout_s + self.store_hold_s

    def _check_combinations(self) -> None:
        """Raise ConfigError for settings that cannot work together."""
        if self.elasticsearch_api_key is not None and "@" in self.elasticsearch_url:
            raise ConfigError("MATCH_ELASTICSEARCH_API_KEY cannot be combined with a user in ELASTICSEARCH_URL")
        if self.elasticsearch_aws_region is not None and (self.elasticsearch_api_key or "@" in self.elasticsearch_url):
            raise ConfigError(
                "MATCH_ELASTICSEARCH_AWS_REGION cannot be combined with an API key, or with a user in ELASTICSEARCH_URL"
            )
        if self.elasticsearch_ca_file is not None and "http://" in self.elasticsearch_url:
            raise ConfigError("MATCH_ELASTICSEARCH_CA_FILE needs https:// before every host in ELASTICSEARCH_URL")
        if self.max_bytes_in_flight < self.max_image_bytes:
            raise ConfigError("MATCH_MAX_BYTES_IN_FLIGHT must not be below MATCH_MAX_IMAGE_BYTES")
        # Otherwise running tasks would be delivered again, to a second worker.
        if self.visibility_timeout_s <= self.longest_task_s:
            raise ConfigError(
                "MATCH_VISIBILITY_TIMEOUT_S must be above the sum of MATCH_FETCH_TIMEOUT_S, twice "
                f"MATCH_DECODE_TIMEOUT_S, and MATCH_STORE_HOLD_S, {self.longest_task_s:g}"
            )
        if self.webhook_secret and self.webhook_secret_file:
            raise ConfigError("MATCH_WEBHOOK_SECRET cannot be combined with MATCH_WEBHOOK_SECRET_FILE")
        if self.lost_after_s < self.visibility_timeout_s:
            raise ConfigError("MATCH_SWEEP_AFTER_S must not be below MATCH_VISIBILITY_TIMEOUT_S")
