"""Logs at debug level contain no key, no password and no signature of a URL."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import requests
from redis import Redis

from api.new_key import new_key, table
from common.store.sqlite import SqliteStore
from dev.redis_server import RedisServer
from support.http_servers import Handler, LocalServer, serving
from support.processes import running, serving_api

REDIS_PASSWORD = "r3dis-Pa55word"  # noqa: S105 - a secret of this test only
ELASTIC_PASSWORD = "3lastic-Pa55word"  # noqa: S105 - the same
SIGNATURE = "s1gnature0fAUrl"
LOGIN = "us3rs-Pa55word"
KEY = new_key()
UNKNOWN_KEY = new_key()
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
SECRETS = (REDIS_PASSWORD, SIGNATURE, LOGIN, KEY, UNKNOWN_KEY)


@pytest.fixture(scope="module")
def stack(start_stack: Callable[..., Any], image_server: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service at debug level, with keys, on a Redis with a password, after many refused requests."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "keys.toml").write_text(table("importer", ["read", "write", "admin"], KEY))
    with RedisServer(folder / "redis") as server:
        with Redis.from_url(server.url) as client:
            client.config_set("requirepass", REDIS_PASSWORD)
        stack = start_stack(
            folder / "home",
            REDIS_URL=server.url.replace("redis://", f"redis://:{REDIS_PASSWORD}@"),
            MATCH_API_KEYS_FILE=str(folder / "keys.toml"),
            MATCH_FETCH_ALLOW=image_server.removeprefix("http://"),
            # Without a network, the resolver fails for now.
            MATCH_FETCH_RETRY_FOR_S="0",
            MATCH_LOG_LEVEL="debug",
            MATCH_LOG_FORMAT="json",
        )
        misuse(stack, image_server)
        stack.stop()
    return stack


def misuse(stack: Any, image_server: str) -> None:
    host = image_server.removeprefix("http://")
    signed = f"?X-Amz-Signature={SIGNATURE}"
    urls = [
        f"{image_server}/chelsea.jpg{signed}",
        f"{image_server}/nowhere.jpg{signed}",
        f"{image_server}/to/{image_server}/chelsea.jpg{signed}",
        f"{image_server}/to/http://me:{LOGIN}@{host}/chelsea.jpg{signed}",
        f"http://me:{LOGIN}@{host}/chelsea.jpg{signed}",
        f"http://192.0.2.1/chelsea.jpg{signed}",
        f"http://nowhere.invalid/chelsea.jpg{signed}",
        f"//me:{LOGIN}@nowhere{signed}",
    ]
    for number, url in enumerate(urls):
        fields = {"url": url, "filepath": f"{number}.jpg", "wait": "30"}
        stack.call("POST", "/add", data=fields, headers=AUTHORIZED)
        stack.call("POST", "/search", data={"url": url}, headers=AUTHORIZED)
        stack.call("GET", "/search", params={"url": url}, headers=AUTHORIZED)
        stack.call("POST", "/add", params={url: url}, headers=AUTHORIZED)
    lines = "".join(json.dumps({"url": url, "filepath": url}) + "\n" for url in urls)
    headers = AUTHORIZED | {"Content-Type": "application/x-ndjson"}
    stack.call("POST", "/add/batch", data=f"{lines}{urls[0]}\n", headers=headers)
    stack.call("GET", f"/count?signature={SIGNATURE}", headers={"Authorization": f"Bearer {UNKNOWN_KEY}"})
    stack.call("GET", "/count", headers={"Authorization": f"Basic {KEY}"})
    stack.call("GET", f"/tasks/{KEY}", headers=AUTHORIZED)
    stack.call("GET", f"/tasks?state=failed&cursor={SIGNATURE}", headers=AUTHORIZED)
    stack.call("GET", "/docs", headers={"Referer": f"http://me:{LOGIN}@nowhere/{signed}"})
    while stack.call("GET", "/tasks", params={"state": "pending"}, headers=AUTHORIZED).json()["result"]:
        sleep(0.1)


def test_no_log_contains_a_secret(stack: Any) -> None:
    logs = {path.name: path.read_text() for path in sorted((stack.home / "logs").glob("*.log"))}

    assert {"api.log", "worker-1.log", "flower.log"} <= logs.keys()
    assert '"level": "debug"' in logs["api.log"]
    for name, text in logs.items():
        assert [secret for secret in SECRETS if secret in text] == [], name


def test_no_stored_source_url_contains_a_secret(stack: Any, image_server: str) -> None:
    with closing(SqliteStore(stack.home / "match.db")) as store:
        records = store.records([f"{number}.jpg" for number in range(8)])

    urls = {filepath: record.url for filepath, record in records.items()}
    assert urls.pop("0.jpg") == f"{image_server}/chelsea.jpg"
    assert [secret for secret in SECRETS for url in urls.values() if url and secret in url] == []


def test_log_names_the_key_of_a_request(stack: Any) -> None:
    lines = [json.loads(line) for line in (stack.home / "logs" / "api.log").read_text().splitlines()]

    requests_by_key = {(line["endpoint"], line.get("key"), line["status"]) for line in lines if "endpoint" in line}

    assert ("add", "importer", 200) in requests_by_key
    assert ("count", None, 401) in requests_by_key


class Refusing(Handler):
    """An Elasticsearch that refuses every login and repeats it in the error."""

    def answer(self) -> None:
        body = json.dumps({"error": self.headers.get("Authorization"), "status": 401}).encode()
        self.reply(401, body, {"Content-Type": "application/json", "X-Elastic-Product": "Elasticsearch"})


@pytest.fixture
def refusing() -> Iterator[str]:
    with serving(LocalServer(Refusing)) as server:
        yield f"http://elastic:{ELASTIC_PASSWORD}@{server.address}"


def test_no_log_contains_the_password_of_elasticsearch(
    refusing: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    environment = {
        "WORKER_COUNT": "1",
        "REDIS_URL": redis_server.url,
        "MATCH_STORE_URL": "",
        "ELASTICSEARCH_URL": refusing,
        "MATCH_LOG_LEVEL": "debug",
    }
    with serving_api(tmp_path, environment) as api, running("-m", "workers", environment=environment, log=api.log):
        answer = requests.get(f"{api.url}/count", timeout=30)

    text = api.log.read_text()
    encoded = "ZWxhc3RpYzoz"  # How "elastic:3" begins in base64.
    assert answer.status_code in {500, 503}
    assert [secret for secret in (ELASTIC_PASSWORD, encoded) if secret in text or secret in answer.text] == []
