"""The Dockerfiles: a linter's rules, and rules that are specific to Match."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from checks.dockerfile import Dockerfile, read_dockerfile

ROOT = Path(__file__).resolve().parents[2]
API, WORKER = (read_dockerfile(ROOT / f"Dockerfile.{name}") for name in ("api", "worker"))
IMAGES = [("api", API, None), ("worker", WORKER, "worker"), ("flower", WORKER, "flower")]
each_image = pytest.mark.parametrize(
    ("dockerfile", "target"), [image[1:] for image in IMAGES], ids=[image[0] for image in IMAGES]
)
Make = Callable[..., subprocess.CompletedProcess[str]]
PINNED = re.compile(r"python:3\.1[1-4]\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}")


@pytest.fixture(scope="session")
def hadolint() -> Path:
    return Path(sys.executable).with_name("hadolint")


@pytest.mark.parametrize("name", ["Dockerfile.api", "Dockerfile.worker"])
def test_hadolint_has_no_findings(hadolint: Path, name: str) -> None:
    done = subprocess.run([hadolint, ROOT / name], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_rejects_unpinned_versions(hadolint: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN pip install flask\n")

    done = subprocess.run([hadolint, "Dockerfile"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert {"DL3006", "DL3013"} <= set(re.findall(r"DL\d+", done.stdout))


@pytest.mark.parametrize("dockerfile", [API, WORKER], ids=["api", "worker"])
def test_every_stage_has_the_same_base_by_digest(dockerfile: Dockerfile) -> None:
    names = {stage.name for stage in dockerfile.stages}
    bases = {stage.base for stage in dockerfile.stages} - names

    assert len(bases) == 1
    assert all(PINNED.fullmatch(base) for base in bases)
    assert bases == {API.stages[0].base}


@pytest.mark.parametrize("dockerfile", [API, WORKER], ids=["api", "worker"])
def test_packages_have_hashes_and_are_not_compiled(dockerfile: Dockerfile) -> None:
    installs = [run for stage in dockerfile.stages for run in stage.each("RUN") if " install " in run and "pip" in run]

    assert installs
    assert all("--require-hashes" in run and "--only-binary :all:" in run for run in installs)
    # A compiler would need apt-get.
    packages = [run for stage in dockerfile.stages for run in stage.each("RUN") if "apt-get install" in run]
    assert all("--no-install-recommends tini &&" in run and "rm -rf /var/lib/apt/lists/*" in run for run in packages)


@each_image
def test_the_image_only_copies_from_build_stages(dockerfile: Dockerfile, target: str | None) -> None:
    stage = dockerfile.final(target)

    assert stage.copies
    assert all(origin for origin, _, _ in stage.copies)


@each_image
def test_the_image_runs_unprivileged_below_an_init(dockerfile: Dockerfile, target: str | None) -> None:
    stage = dockerfile.final(target)

    assert stage.each("USER") == ["10001:10001"]
    assert stage.entrypoint[:2] == ["tini", "--"]
    assert not stage.each("CMD")
    assert stage.healthcheck
    assert "celery" not in stage.healthcheck


@each_image
def test_the_image_has_oci_labels(dockerfile: Dockerfile, target: str | None) -> None:
    stage = dockerfile.final(target)
    labels = dict(word.split("=", 1) for rest in stage.each("LABEL") for word in shlex.split(rest))

    prefix = "org.opencontainers.image."
    assert {name.removeprefix(prefix) for name in labels} == {
        "title",
        "description",
        "version",
        "revision",
        "licenses",
        "base.name",
    }
    # An argument has a value only in the stage that declares it.
    assert {rest.partition("=")[0] for rest in stage.each("ARG")} == {"VERSION", "REVISION"}
    assert labels[f"{prefix}base.name"] == API.stages[0].base.partition("@")[0]


@pytest.mark.parametrize("dockerfile", [API, WORKER], ids=["api", "worker"])
def test_dockerignore_includes_all_copied_files(dockerfile: Dockerfile) -> None:
    copied = {
        source for stage in dockerfile.stages for origin, sources, _ in stage.copies if not origin for source in sources
    }
    included = [
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]

    excluded = {path for path in copied if not any(Path(path).match(pattern.rstrip("/")) for pattern in included)}

    assert excluded == set()
    assert all((ROOT / path).exists() for path in copied)


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ({}, []),
        ({"TRACING": "true"}, ["tracing"]),
        ({"AWS": "true"}, ["aws"]),
        ({"TRACING": "true", "AWS": "true"}, ["tracing", "aws"]),
    ],
    ids=["none", "tracing", "aws", "both"],
)
@pytest.mark.parametrize(("dockerfile", "name"), [(API, "api"), (WORKER, "worker")], ids=["api", "worker"])
def test_optional_packages_are_installed_on_request(
    tmp_path: Path, dockerfile: Dockerfile, name: str, arguments: dict[str, str], files: list[str]
) -> None:
    runs = [run for stage in dockerfile.stages for run in stage.each("RUN")]
    (run,) = (run for run in runs if f"/requirements/{name}.txt" in run)
    for program in ("python", "pip"):
        (tmp_path / program).write_text(f'#!/bin/sh\nprintf "%s\\n" "$0 $*" >> {tmp_path}/calls\n')
        (tmp_path / program).chmod(0o755)

    subprocess.run(["/bin/sh", "-c", run], check=True, env={"PATH": f"{tmp_path}:{os.defpath}"} | arguments)

    assert re.findall(r"-r /requirements/(\w+)\.txt", (tmp_path / "calls").read_text()) == [name, *files]


@pytest.fixture
def start_flower(tmp_path: Path) -> Callable[..., str]:
    """Run the entrypoint of flower's image with a fake celery that prints its broker's URL."""
    (tmp_path / "celery").write_text("#!/bin/sh\necho $1 with $CELERY_BROKER_URL\n")
    (tmp_path / "celery").chmod(0o755)
    command = WORKER.final("flower").entrypoint[2:]

    def start_flower(**settings: str) -> str:
        variables = {"PATH": f"{tmp_path}:{os.defpath}", **settings}
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False).stdout

    return start_flower


@pytest.mark.parametrize("settings", [{}, {"FLOWER_BASIC_AUTH": ""}], ids=["none", "empty"])
def test_flower_needs_a_password(start_flower: Callable[..., str], settings: dict[str, str]) -> None:
    assert start_flower(**settings) == ""


@pytest.mark.parametrize(
    ("url", "broker_url"),
    [
        ("redis://redis:6379/0", "redis://redis:6379/0"),
        ("rediss://default:p%26w@redis:6379/0", "rediss://default:p%26w@redis:6379/0?ssl_cert_reqs=required"),
    ],
)
def test_flower_verifies_the_certificate_of_redis(start_flower: Callable[..., str], url: str, broker_url: str) -> None:
    output = start_flower(FLOWER_BASIC_AUTH="a:b", CELERY_BROKER_URL=url)

    assert output == f"flower with {broker_url}\n"


def test_make_build_sets_name_version_and_revision(make: Make) -> None:
    done = make("-n", "build", "REGISTRY=registry.example.com/team/", "TAG=1.2.3", "TRACING=true", "AWS=true")

    lines = done.stdout.splitlines()
    built = [dict(pairwise(shlex.split(line))) for line in lines]
    assert [line["-t"] for line in built] == [
        f"registry.example.com/team/match-{name}:1.2.3" for name in ("api", "worker", "flower")
    ]
    assert [(line["-f"], line.get("--target")) for line in built] == [
        ("Dockerfile.api", None),
        ("Dockerfile.worker", "worker"),
        ("Dockerfile.worker", "flower"),
    ]
    assert all("VERSION=1.2.3" in line and "REVISION=" in line for line in lines)
    assert ["TRACING=true" in line and "AWS=true" in line for line in lines] == [True, True, False]


def test_make_push_needs_a_registry(make: Make) -> None:
    done = make("push", "REGISTRY=", "DOCKER=true")

    assert done.returncode == 2
    assert "REGISTRY=" in done.stderr


def test_entrypoints_start_api_worker_and_flower() -> None:
    assert API.final().entrypoint[2:] == ["python", "-m", "api"]
    assert WORKER.final("worker").entrypoint[2:] == ["python", "-m", "workers"]
    assert json.dumps(WORKER.final("flower").entrypoint).count("--read-only") == 1
