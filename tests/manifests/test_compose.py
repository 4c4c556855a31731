"""The compose files: they are valid, and run the service with matching settings."""

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
from checks.memory import NEEDED_MIB
from checks.redis_command import read_appendonly, running_redis
from checks.tools import COMPOSE, build
from common.config import MIB, Settings

ROOT = Path(__file__).resolve().parents[2]
PROXY = ROOT / "proxy"
FILE = ROOT / "docker-compose.yml"
APIS = ("api-1", "api-2")
DOCKERFILES = {
    "api-1": ("Dockerfile.api", None),
    "api-2": ("Dockerfile.api", None),
    "worker": ("Dockerfile.worker", "worker"),
    "flower": ("Dockerfile.worker", "flower"),
}
REDIS_PASSWORD, ELASTIC_PASSWORD = "oneSecret1", "anotherSecret2"
REQUIRED = {
    "FLOWER_BASIC_AUTH": "somebody:secret",
    "REDIS_PASSWORD": REDIS_PASSWORD,
    "ELASTIC_PASSWORD": ELASTIC_PASSWORD,
}
# The first run on a machine builds the loader.
pytestmark = pytest.mark.timeout(1200)

Load = Callable[..., dict[str, Any]]
Make = Callable[..., subprocess.CompletedProcess[str]]


class LoadFailed(Exception):
    """Compose does not load the file; the text is its error."""


@pytest.fixture(scope="session")
def load(require: Callable[..., Any]) -> Load:
    program = require(build, COMPOSE)

    def load(
        file: Path | str = FILE, environment: Mapping[str, str] = REQUIRED, only: Sequence[str] = ()
    ) -> dict[str, Any]:
        command = [program, file, *only]
        variables = {"PATH": os.environ["PATH"], **environment}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoadFailed(done.stderr)
        return json.loads(done.stdout)

    return load


@pytest.fixture
def services(load: Load) -> dict[str, Any]:
    return load()["services"]


def seconds(duration: str) -> float:
    minutes, _, rest = duration.rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s") or 0)


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.tls.yml", "docker-compose.opensearch.yml"])
def test_the_files_follow_the_compose_specification(file: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / file]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip()) == (0, "ok -- validation done")


def test_flower_needs_a_password(load: Load) -> None:
    with pytest.raises(LoadFailed, match=r"FLOWER_BASIC_AUTH.*set it to user:password"):
        load(environment={})


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["services"]["worker"].update(depend_on=["redis"]),
        lambda file: file["services"]["worker"]["depends_on"].update(valkey={"condition": "service_healthy"}),
        lambda file: file["services"]["worker"].update(secrets=["key"]),
        lambda file: file["volumes"].pop("redis"),
    ],
    ids=["unknown key", "unknown service", "unknown secret", "unknown volume"],
)
def test_a_broken_file_is_rejected(load: Load, tmp_path: Path, change: Callable[[Any], Any]) -> None:
    file = yaml.safe_load(FILE.read_text())
    change(file)
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(yaml.safe_dump(file))

    with pytest.raises(LoadFailed):
        load(broken)


def test_the_services_are_complete(services: dict[str, Any]) -> None:
    assert services.keys() == {"proxy", *APIS, "worker", "redis", "elasticsearch", "flower"}


def test_only_nginx_and_on_loopback_flower_are_published(services: dict[str, Any]) -> None:
    published = {
        (name, port.get("host_ip", ""), port["published"], port["target"])
        for name, service in services.items()
        for port in service.get("ports", [])
    }

    assert published == {("proxy", "", "8888", 8080), ("flower", "127.0.0.1", "5555", 5555)}


def test_redis_and_elasticsearch_have_an_internal_network_only(load: Load) -> None:
    project = load()

    internal = {name for name, service in project["services"].items() if set(service["networks"]) == {"inside"}}

    assert project["networks"]["inside"]["internal"] is True
    assert internal == {"redis", "elasticsearch"}


def test_the_number_of_workers_can_be_set(load: Load) -> None:
    worker = load(environment=REQUIRED | {"WORKERS": "4"})["services"]["worker"]

    assert worker["deploy"]["replicas"] == 4
    assert "container_name" not in worker


@pytest.mark.parametrize(
    ("variables", "image"),
    [
        ({}, "match-api:latest"),
        ({"REGISTRY": "registry.example.com/team", "TAG": "1.2.3"}, "registry.example.com/team/match-api:1.2.3"),
    ],
    ids=["local", "pushed"],
)
def test_images_have_the_names_of_make_push(load: Load, variables: Mapping[str, str], image: str) -> None:
    services = load(environment=REQUIRED | variables)["services"]

    assert {services[name]["image"] for name in APIS} == {image}


def test_api_and_workers_start_after_their_stores(services: dict[str, Any]) -> None:
    for name in (*APIS, "worker"):
        conditions = {store: dependency["condition"] for store, dependency in services[name]["depends_on"].items()}
        assert conditions == {"redis": "service_healthy", "elasticsearch": "service_healthy"}


@pytest.mark.parametrize("name", ["proxy", *APIS, "worker", "redis", "elasticsearch", "flower"])
def test_each_service_has_a_healthcheck_limits_and_restarts(services: dict[str, Any], name: str) -> None:
    service = services[name]
    check = service.get("healthcheck", {})
    has_healthcheck = ("test" in check and not check.get("disable")) or (
        name in DOCKERFILES and read_dockerfile(ROOT / DOCKERFILES[name][0]).final(DOCKERFILES[name][1]).healthcheck
    )

    assert has_healthcheck
    assert service["restart"] == "unless-stopped"
    assert int(service["deploy"]["resources"]["limits"]["memory"]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only") or name == "elasticsearch"


@pytest.mark.parametrize("name", [*APIS, "worker"])
def test_containers_have_valid_settings(services: dict[str, Any], name: str) -> None:
    environment = services[name]["environment"]
    known = {spec.metadata["name"] for spec in fields(Settings)}

    settings = Settings.from_env({name: value for name, value in environment.items() if value})

    assert environment.keys() <= known
    assert settings.redis_url == f"redis://default:{REDIS_PASSWORD}@redis:6379/0"
    assert settings.elasticsearch_url == f"http://elastic:{ELASTIC_PASSWORD}@elasticsearch:9200"
    assert settings.log_format == "json"


@pytest.mark.parametrize(("name", "kind"), [*((name, "api") for name in APIS), ("worker", "worker")])
def test_memory_limits_cover_processes_and_decoders(services: dict[str, Any], name: str, kind: str) -> None:
    environment = services[name]["environment"]

    settings = Settings.from_env({name: value for name, value in environment.items() if value})

    limit = int(services[name]["deploy"]["resources"]["limits"]["memory"])
    assert limit >= NEEDED_MIB[kind](settings) * MIB


def test_the_apis_listen_at_nginx_upstreams(services: dict[str, Any]) -> None:
    upstreams = re.findall(r"^server ([\w-]+):(\d+)", (PROXY / "upstream.conf").read_text(), flags=re.MULTILINE)

    addresses = []
    for name in APIS:
        settings = Settings.from_env({key: value for key, value in services[name]["environment"].items() if value})
        addresses.append((name, f"{settings.port}"))
        # nginx replaces X-Forwarded-For.
        assert (settings.listens_on, settings.trusted_proxies) == ("0.0.0.0", 1)  # noqa: S104 - in its container

    assert addresses == upstreams


def test_nginx_runs_unprivileged_on_a_bounded_volume(services: dict[str, Any]) -> None:
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
    (deployment,) = [
        thing for thing in yaml.safe_load_all((ROOT / "k8s/base/api.yaml").read_text()) if thing["kind"] == "Deployment"
    ]
    (container,) = [
        container for container in deployment["spec"]["template"]["spec"]["containers"] if container["name"] == "proxy"
    ]

    assert container["image"] == services["proxy"]["image"]
    assert container["command"] == services["proxy"]["entrypoint"]


def test_the_tls_file_adds_a_port_and_certificates(load: Load, tmp_path: Path) -> None:
    environment = REQUIRED | {"TLS_DIR": str(tmp_path), "PORT": "80"}

    proxy = load(f"{FILE}:{ROOT / 'docker-compose.tls.yml'}", environment)["services"]["proxy"]

    assert {(port["published"], port["target"]) for port in proxy["ports"]} == {("80", 8080), ("443", 8443)}
    mounted = {volume["target"]: volume["source"] for volume in proxy["volumes"]}
    assert mounted["/run/tls"] == str(tmp_path)
    assert mounted["/etc/match/listen.conf"] == str(PROXY / "tls/listen.conf")
    assert mounted["/etc/match"] == str(PROXY)


def test_the_opensearch_file_replaces_elasticsearch(load: Load) -> None:
    project = load(f"{FILE}:{ROOT / 'docker-compose.opensearch.yml'}")

    services, opensearch = project["services"], project["services"]["opensearch"]
    assert services.keys() == {"proxy", *APIS, "worker", "redis", "opensearch", "flower"}
    for name in (*APIS, "worker"):
        started = {store for store, dependency in services[name]["depends_on"].items() if dependency["required"]}
        settings = Settings.from_env({key: value for key, value in services[name]["environment"].items() if value})
        assert started == {"redis", "opensearch"}
        assert settings.elasticsearch_url == f"http://admin:{ELASTIC_PASSWORD}@opensearch:9200"
    assert list(opensearch["networks"]) == ["inside"]
    assert "ports" not in opensearch
    assert (opensearch["cap_drop"], opensearch["restart"]) == (["ALL"], "unless-stopped")
    assert opensearch["security_opt"] == ["no-new-privileges:true"]
    assert int(opensearch["deploy"]["resources"]["limits"]["memory"]) >= 2 * 1024**3
    assert ELASTIC_PASSWORD not in str(opensearch["healthcheck"])
    assert [volume["target"] for volume in opensearch["volumes"]] == ["/usr/share/opensearch/data"]


@pytest.mark.parametrize(
    ("variables", "file"), [({}, "auth.conf"), ({"MATCH_API_KEYS_FILE": "/keys"}, "keys/auth.conf")]
)
def test_nginx_authorizes_requests_if_the_api_has_keys(load: Load, variables: Mapping[str, str], file: str) -> None:
    volumes = load(environment=REQUIRED | variables)["services"]["proxy"]["volumes"]

    mounted = {volume["target"]: Path(volume["source"]) for volume in volumes}

    assert mounted == {"/etc/match": PROXY, "/etc/match/auth.conf": PROXY / file}


def test_grace_periods_cover_the_shutdown_of_each_program(services: dict[str, Any]) -> None:
    settings = Settings()

    assert seconds(services["worker"]["stop_grace_period"]) > settings.stop_within_s + 5
    assert all(seconds(services[name]["stop_grace_period"]) > settings.max_wait_s + 5 for name in APIS)
    assert seconds(services["proxy"]["stop_grace_period"]) > settings.max_wait_s + 5


def test_a_key_file_is_a_secret_of_the_apis(load: Load, tmp_path: Path) -> None:
    project = load(environment=REQUIRED | {"MATCH_API_KEYS_FILE": str(tmp_path / "keys.toml")})

    users = [name for name, service in project["services"].items() if service.get("secrets")]

    assert project["secrets"]["api_keys"]["file"] == str(tmp_path / "keys.toml")
    assert sorted(users) == [*APIS]
    assert project["services"]["api-1"]["environment"]["MATCH_API_KEYS_FILE"] == "/run/secrets/api_keys"


def test_the_apis_have_no_keys_by_default(services: dict[str, Any]) -> None:
    assert not services["api-1"]["environment"]["MATCH_API_KEYS_FILE"]


def test_redis_is_durable_and_evicts_nothing(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    # During a rewrite of the append-only file, changed pages exist twice.
    assert int(services["redis"]["deploy"]["resources"]["limits"]["memory"]) >= 2 * 1024**3
    assert [volume["target"] for volume in services["redis"]["volumes"]] == ["/data"]


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "ELASTIC_PASSWORD"])
def test_redis_and_elasticsearch_need_passwords(load: Load, name: str) -> None:
    with pytest.raises(LoadFailed, match=rf"{name}.*set it to a random text"):
        load(environment={key: value for key, value in REQUIRED.items() if key != name})


def test_passwords_are_in_no_command_line(services: dict[str, Any]) -> None:
    commands = [
        f"{service.get(part)}" for service in services.values() for part in ("command", "entrypoint", "healthcheck")
    ]

    assert not any(password in command for command in commands for password in (REDIS_PASSWORD, ELASTIC_PASSWORD))
    assert services["elasticsearch"]["environment"]["xpack.security.enabled"] == "true"


def test_redis_of_compose_asks_for_its_password(services: dict[str, Any], tmp_path: Path) -> None:
    """Run the entrypoint with the Redis of this machine."""
    redis = services["redis"]
    entrypoint = [part.replace("/tmp/", f"{tmp_path}/").replace("$$", "$") for part in redis["entrypoint"]]  # noqa: S108 - the container's
    command, password = [*entrypoint, *redis["command"]], redis["environment"]["REDISCLI_AUTH"]

    with running_redis(command, password=password, folder=tmp_path) as at:
        durable = read_appendonly(at, password=REDIS_PASSWORD)

    assert durable == {"appendonly": "yes"}


def test_make_run_starts_no_elasticsearch(load: Load, make: Make) -> None:
    variables = {"ELASTICSEARCH_URL": "http://host.docker.internal:9200"}
    done = make("-n", "run", *(f"{name}={value}" for name, value in variables.items()))
    _, up, names = done.stdout.splitlines()[-1].partition("docker compose up --build --no-deps ")

    services = load(environment=REQUIRED | variables, only=names.split())["services"]

    assert up
    assert services.keys() == {"proxy", *APIS, "worker", "redis"}
    for name in (*APIS, "worker"):
        assert services[name]["depends_on"].keys() == {"redis"}
        assert services[name]["environment"]["ELASTICSEARCH_URL"] == variables["ELASTICSEARCH_URL"]
        assert services[name]["extra_hosts"] == ["host.docker.internal=host-gateway"]


def test_make_run_needs_an_elasticsearch_url(make: Make) -> None:
    done = make("run", "ELASTICSEARCH_URL=", "DOCKER=true")

    assert done.returncode == 2
    assert "ELASTICSEARCH_URL=" in done.stderr


@pytest.mark.parametrize(
    ("variables", "file", "code"),
    [
        (["REDIS_PASSWORD=oneSecret1"], "", 0),
        (["REDIS_PASSWORD="], "REDIS_PASSWORD=oneSecret1\n", 0),
        (["REDIS_PASSWORD="], "ELASTIC_PASSWORD=anotherSecret2\n", 2),
    ],
    ids=["variable", "file", "neither"],
)
def test_make_run_needs_a_password_of_redis(
    make: Make, tmp_path: Path, variables: list[str], file: str, code: int
) -> None:
    (tmp_path / ".env").write_text(file)

    done = make(
        "-C",
        f"{tmp_path}",
        "-f",
        f"{ROOT / 'Makefile'}",
        "run",
        "DOCKER=true",
        "ELASTICSEARCH_URL=http://a",
        *variables,
    )

    assert done.returncode == code, done.stderr
    assert ("make run: set REDIS_PASSWORD" in done.stderr) == bool(code)


def test_flower_has_more_names_on_request(load: Load) -> None:
    services = load(environment=REQUIRED | {"FLOWER_ALLOWED_HOSTS": "flower.example.org"})["services"]

    assert services["flower"]["environment"]["FLOWER_ALLOWED_HOSTS"] == "flower.example.org"


@pytest.mark.parametrize("name", ["README.md", "docs/migrating-from-dsys-match.md"])
def test_documented_make_run_names_the_password(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if "make run " in line]

    assert lines
    assert all("`REDIS_PASSWORD=… make run ELASTICSEARCH_URL=" in line for line in lines)


@pytest.mark.parametrize(("name", "service"), [("match-api", "api-1"), ("match-worker", "worker")])
def test_documented_containers_end_as_those_of_compose(services: dict[str, Any], name: str, service: str) -> None:
    page = (ROOT / "docs" / "migrating-from-dsys-match.md").read_text()
    [command] = re.findall(rf"^docker run -d .* {name}:\S+$", page, re.MULTILINE)
    settings = re.findall(r"-e (\w+)=", command)

    assert f"--stop-timeout {seconds(services[service]['stop_grace_period']):.0f} " in command
    assert {*settings} <= {*services[service]["environment"]}


def test_all_services_use_the_same_redis(services: dict[str, Any]) -> None:
    urls = {services[name]["environment"]["REDIS_URL"] for name in (*APIS, "worker")}

    assert urls == {services["flower"]["environment"]["CELERY_BROKER_URL"]}


@pytest.mark.parametrize("name", ["redis", "elasticsearch"])
def test_third_party_images_have_a_version(services: dict[str, Any], name: str) -> None:
    _, _, tag = services[name]["image"].partition(":")

    assert tag
    assert tag != "latest"
