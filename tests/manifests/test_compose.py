"""The compose file: what compose's own loader and schema say of it, and what it makes of the service."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from checks.dockerfile import read_dockerfile
from checks.tools import COMPOSE, build
from common.config import Settings

ROOT = Path(__file__).resolve().parents[2]
PROXY = ROOT / "proxy"
FILE = ROOT / "docker-compose.yml"
APIS = ("api-1", "api-2")
OURS = {
    "api-1": ("Dockerfile.api", None),
    "api-2": ("Dockerfile.api", None),
    "worker": ("Dockerfile.worker", "worker"),
    "flower": ("Dockerfile.worker", "flower"),
}
GIVEN = {"FLOWER_BASIC_AUTH": "somebody:secret"}
# The first run on a machine builds the loader.
pytestmark = pytest.mark.timeout(1200)

Load = Callable[..., dict[str, Any]]
Make = Callable[..., subprocess.CompletedProcess[str]]


class Refused(Exception):
    """Compose does not load the file; the text is its own."""


@pytest.fixture(scope="session")
def load(needed: Callable[..., Any]) -> Load:
    program = needed(build, COMPOSE)

    def load(
        file: Path | str = FILE, environment: Mapping[str, str] = GIVEN, only: Sequence[str] = ()
    ) -> dict[str, Any]:
        command = [program, file, *only]
        variables = {"PATH": os.environ["PATH"], **environment}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(done.stderr)
        return json.loads(done.stdout)

    return load


@pytest.fixture
def services(load: Load) -> dict[str, Any]:
    return load()["services"]


def seconds(duration: str) -> float:
    minutes, _, rest = duration.rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s") or 0)


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.tls.yml"])
def test_the_file_is_as_the_specification_says(file: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / file]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip()) == (0, "ok -- validation done")


def test_without_a_password_for_flower_nothing_starts(load: Load) -> None:
    with pytest.raises(Refused, match=r"FLOWER_BASIC_AUTH.*set it to user:password"):
        load(environment={})


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["services"]["worker"].update(depend_on=["redis"]),
        lambda file: file["services"]["worker"]["depends_on"].update(valkey={"condition": "service_healthy"}),
        lambda file: file["services"]["worker"].update(secrets=["key"]),
        lambda file: file["volumes"].pop("redis"),
    ],
    ids=["unknown word", "unknown service", "unknown secret", "unknown volume"],
)
def test_a_broken_file_is_refused(load: Load, tmp_path: Path, change: Callable[[Any], Any]) -> None:
    file = yaml.safe_load(FILE.read_text())
    change(file)
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(yaml.safe_dump(file))

    with pytest.raises(Refused):
        load(broken)


def test_all_parts_are_there(services: dict[str, Any]) -> None:
    assert services.keys() == {"proxy", *APIS, "worker", "redis", "elasticsearch", "flower"}


def test_only_nginx_is_published_and_flower_to_this_machine(services: dict[str, Any]) -> None:
    published = {
        (name, port.get("host_ip", ""), port["published"], port["target"])
        for name, service in services.items()
        for port in service.get("ports", [])
    }

    assert published == {("proxy", "", "8888", 8080), ("flower", "127.0.0.1", "5555", 5555)}


def test_the_stores_are_on_a_network_without_a_way_out(load: Load) -> None:
    project = load()

    inside = {name for name, service in project["services"].items() if set(service["networks"]) == {"inside"}}

    assert project["networks"]["inside"]["internal"] is True
    assert inside == {"redis", "elasticsearch"}


def test_workers_can_be_as_many_as_wanted(load: Load) -> None:
    worker = load(environment=GIVEN | {"WORKERS": "4"})["services"]["worker"]

    assert worker["deploy"]["replicas"] == 4
    assert "container_name" not in worker


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ({}, "match-api:latest"),
        ({"REGISTRY": "registry.example.com/team", "TAG": "1.2.3"}, "registry.example.com/team/match-api:1.2.3"),
    ],
    ids=["built here", "pushed"],
)
def test_images_are_called_as_make_push_calls_them(load: Load, given: Mapping[str, str], image: str) -> None:
    services = load(environment=GIVEN | given)["services"]

    assert {services[name]["image"] for name in APIS} == {image}


def test_api_and_workers_start_after_their_stores(services: dict[str, Any]) -> None:
    for name in (*APIS, "worker"):
        waits = {store: on["condition"] for store, on in services[name]["depends_on"].items()}
        assert waits == {"redis": "service_healthy", "elasticsearch": "service_healthy"}


@pytest.mark.parametrize("name", ["proxy", *APIS, "worker", "redis", "elasticsearch", "flower"])
def test_each_service_is_watched_bounded_and_comes_back(services: dict[str, Any], name: str) -> None:
    service = services[name]
    check = service.get("healthcheck", {})
    watched = ("test" in check and not check.get("disable")) or (
        name in OURS and read_dockerfile(ROOT / OURS[name][0]).final(OURS[name][1]).healthcheck
    )

    assert watched
    assert service["restart"] == "unless-stopped"
    assert int(service["deploy"]["resources"]["limits"]["memory"]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only") or name == "elasticsearch"


@pytest.mark.parametrize("name", [*APIS, "worker"])
def test_containers_are_given_settings_that_are_known_and_taken(services: dict[str, Any], name: str) -> None:
    given = services[name]["environment"]
    known = {spec.metadata["name"] for spec in fields(Settings)}

    settings = Settings.from_env({name: value for name, value in given.items() if value})

    assert given.keys() <= known
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.elasticsearch_url == "http://elasticsearch:9200"
    assert settings.log_format == "json"


def test_the_apis_listen_where_nginx_looks_for_them(services: dict[str, Any]) -> None:
    upstreams = re.findall(r"^server ([\w-]+):(\d+)", (PROXY / "upstream.conf").read_text(), flags=re.MULTILINE)

    listens = []
    for name in APIS:
        settings = Settings.from_env({key: value for key, value in services[name]["environment"].items() if value})
        listens.append((name, f"{settings.port}"))
        # nginx replaces X-Forwarded-For.
        assert (settings.listens_on, settings.trusted_proxies) == ("0.0.0.0", 1)  # noqa: S104 - in its container

    assert listens == upstreams


def test_nginx_runs_as_the_image_needs_it(services: dict[str, Any]) -> None:
    proxy = services["proxy"]

    assert re.fullmatch(r"nginxinc/nginx-unprivileged:[\d.]+-alpine@sha256:[0-9a-f]{64}", proxy["image"])
    assert proxy["user"] == "101:101"
    assert proxy["stop_signal"] == "SIGQUIT"
    assert proxy["tmpfs"] == ["/tmp:size=1g,mode=1777"]  # noqa: S108 - in its container
    # Its temporary files count as memory.
    assert int(proxy["deploy"]["resources"]["limits"]["memory"]) > 1024**3
    # Neither Redis nor the store.
    assert list(proxy["networks"]) == ["outside"]


def test_compose_and_kubernetes_run_the_same_nginx(services: dict[str, Any]) -> None:
    (pod,) = [
        one for one in yaml.safe_load_all((ROOT / "k8s/base/api.yaml").read_text()) if one["kind"] == "Deployment"
    ]
    (container,) = [one for one in pod["spec"]["template"]["spec"]["containers"] if one["name"] == "proxy"]

    assert container["image"] == services["proxy"]["image"]
    assert container["command"] == services["proxy"]["entrypoint"]


def test_the_tls_file_adds_a_port_and_certificates(load: Load, tmp_path: Path) -> None:
    given = GIVEN | {"TLS_DIR": str(tmp_path), "PORT": "80"}

    proxy = load(f"{FILE}:{ROOT / 'docker-compose.tls.yml'}", given)["services"]["proxy"]

    assert {(port["published"], port["target"]) for port in proxy["ports"]} == {("80", 8080), ("443", 8443)}
    mounted = {volume["target"]: volume["source"] for volume in proxy["volumes"]}
    assert mounted["/run/tls"] == str(tmp_path)
    assert mounted["/etc/match/listen.conf"] == str(PROXY / "tls/listen.conf")
    assert mounted["/etc/match"] == str(PROXY)


@pytest.mark.parametrize(("given", "file"), [({}, "auth.conf"), ({"MATCH_API_KEYS_FILE": "/keys"}, "keys/auth.conf")])
def test_nginx_asks_for_keys_where_there_are_some(load: Load, given: Mapping[str, str], file: str) -> None:
    volumes = load(environment=GIVEN | given)["services"]["proxy"]["volumes"]

    mounted = {volume["target"]: Path(volume["source"]) for volume in volumes}

    assert mounted == {"/etc/match": PROXY, "/etc/match/auth.conf": PROXY / file}


def test_containers_have_the_time_to_end_that_their_programs_take(services: dict[str, Any]) -> None:
    settings = Settings()

    assert seconds(services["worker"]["stop_grace_period"]) > settings.stop_within_s + 5
    assert all(seconds(services[name]["stop_grace_period"]) > settings.max_wait_s + 5 for name in APIS)
    assert seconds(services["proxy"]["stop_grace_period"]) > settings.max_wait_s + 5


def test_a_file_of_keys_becomes_a_secret_of_the_apis(load: Load, tmp_path: Path) -> None:
    project = load(environment=GIVEN | {"MATCH_API_KEYS_FILE": str(tmp_path / "keys.toml")})

    holders = [name for name, service in project["services"].items() if service.get("secrets")]

    assert project["secrets"]["api_keys"]["file"] == str(tmp_path / "keys.toml")
    assert sorted(holders) == [*APIS]
    assert project["services"]["api-1"]["environment"]["MATCH_API_KEYS_FILE"] == "/run/secrets/api_keys"


def test_without_a_file_of_keys_none_is_asked_for(services: dict[str, Any]) -> None:
    assert not services["api-1"]["environment"]["MATCH_API_KEYS_FILE"]


def test_redis_keeps_what_it_is_told_and_forgets_nothing(services: dict[str, Any]) -> None:
    said = services["redis"]["command"]
    options = dict(zip(said[1::2], said[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    # While the log is rewritten, changed pages exist twice.
    assert int(services["redis"]["deploy"]["resources"]["limits"]["memory"]) >= 2 * 1024**3
    assert [volume["target"] for volume in services["redis"]["volumes"]] == ["/data"]


def test_make_run_leaves_the_elasticsearch_of_the_file_away(load: Load, make: Make) -> None:
    given = {"ELASTICSEARCH_URL": "http://host.docker.internal:9200"}
    told = make("-n", "run", *(f"{name}={value}" for name, value in given.items()))
    _, up, names = told.stdout.splitlines()[-1].partition("docker compose up --build --no-deps ")

    services = load(environment=GIVEN | given, only=names.split())["services"]

    assert up
    assert services.keys() == {"proxy", *APIS, "worker", "redis"}
    for name in (*APIS, "worker"):
        assert services[name]["depends_on"].keys() == {"redis"}
        assert services[name]["environment"]["ELASTICSEARCH_URL"] == given["ELASTICSEARCH_URL"]
        assert services[name]["extra_hosts"] == ["host.docker.internal=host-gateway"]


def test_make_run_asks_for_an_elasticsearch(make: Make) -> None:
    done = make("run", "ELASTICSEARCH_URL=", "DOCKER=true")

    assert done.returncode == 2
    assert "ELASTICSEARCH_URL=" in done.stderr


def test_all_talk_to_the_same_redis(services: dict[str, Any]) -> None:
    said = {services[name]["environment"]["REDIS_URL"] for name in (*APIS, "worker")}

    assert said == {services["flower"]["environment"]["CELERY_BROKER_URL"]}


@pytest.mark.parametrize("name", ["redis", "elasticsearch"])
def test_images_that_are_not_ours_say_which_they_are(services: dict[str, Any], name: str) -> None:
    _, _, tag = services[name]["image"].partition(":")

    assert tag
    assert tag != "latest"
