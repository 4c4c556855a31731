"""The Dockerfiles: what a linter says of them, and what they promise on paper."""

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
def test_a_linter_has_no_word_against_it(hadolint: Path, name: str) -> None:
    done = subprocess.run([hadolint, ROOT / name], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_a_dockerfile_that_pins_nothing_is_refused(hadolint: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN pip install flask\n")

    done = subprocess.run([hadolint, "Dockerfile"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert {"DL3006", "DL3013"} <= set(re.findall(r"DL\d+", done.stdout))


@pytest.mark.parametrize("dockerfile", [API, WORKER], ids=["api", "worker"])
def test_every_stage_stands_on_the_same_base_by_its_digest(dockerfile: Dockerfile) -> None:
    names = {stage.name for stage in dockerfile.stages}
    bases = {stage.base for stage in dockerfile.stages} - names

    assert len(bases) == 1
    assert all(PINNED.fullmatch(base) for base in bases)
    assert bases == {API.stages[0].base}


@pytest.mark.parametrize("dockerfile", [API, WORKER], ids=["api", "worker"])
def test_nothing_is_installed_without_its_hash_or_compiled(dockerfile: Dockerfile) -> None:
    installs = [run for stage in dockerfile.stages for run in stage.each("RUN") if " install " in run and "pip" in run]

    assert installs
    assert all("--require-hashes" in run and "--only-binary :all:" in run for run in installs)
    # Compilers would come by apt-get.
    packages = [run for stage in dockerfile.stages for run in stage.each("RUN") if "apt-get install" in run]
    assert all("--no-install-recommends tini &&" in run and "rm -rf /var/lib/apt/lists/*" in run for run in packages)


@each_image
def test_the_image_is_made_of_what_another_stage_built(dockerfile: Dockerfile, target: str | None) -> None:
    stage = dockerfile.final(target)

    assert stage.copies
    assert all(origin for origin, _, _ in stage.copies)


@each_image
def test_the_image_runs_one_process_below_an_init_as_nobody_special(dockerfile: Dockerfile, target: str | None) -> None:
    stage = dockerfile.final(target)

    assert stage.each("USER") == ["10001:10001"]
    assert stage.entrypoint[:2] == ["tini", "--"]
    assert not stage.each("CMD")
    assert stage.healthcheck
    assert "celery" not in stage.healthcheck


@each_image
def test_the_image_says_what_it_is(dockerfile: Dockerfile, target: str | None) -> None:
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
    # An argument is known in the stage that declares it alone.
    assert {rest.partition("=")[0] for rest in stage.each("ARG")} == {"VERSION", "REVISION"}
    assert labels[f"{prefix}base.name"] == API.stages[0].base.partition("@")[0]


@pytest.mark.parametrize("dockerfile", [API, WORKER], ids=["api", "worker"])
def test_what_is_copied_reaches_the_builder(dockerfile: Dockerfile) -> None:
    wanted = {
        source for stage in dockerfile.stages for origin, sources, _ in stage.copies if not origin for source in sources
    }
    let_in = [
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]

    shut = {path for path in wanted if not any(Path(path).match(pattern.rstrip("/")) for pattern in let_in)}

    assert shut == set()
    assert all((ROOT / path).exists() for path in wanted)


@pytest.mark.parametrize(("tracing", "files"), [("false", ["api"]), ("true", ["api", "tracing"])])
def test_what_sends_traces_is_installed_where_it_is_asked_for(tmp_path: Path, tracing: str, files: list[str]) -> None:
    (run,) = (run for run in API.stages[0].each("RUN") if "--require-hashes" in run)
    for program in ("python", "pip"):
        (tmp_path / program).write_text(f'#!/bin/sh\nprintf "%s\\n" "$0 $*" >> {tmp_path}/said\n')
        (tmp_path / program).chmod(0o755)

    subprocess.run(["/bin/sh", "-c", run], check=True, env={"PATH": f"{tmp_path}:{os.defpath}", "TRACING": tracing})

    assert re.findall(r"-r /requirements/(\w+)\.txt", (tmp_path / "said").read_text()) == files


@pytest.fixture
def start_flower(tmp_path: Path) -> Callable[..., str]:
    """Run what the image of flower runs, with a celery that says where it finds its Redis."""
    (tmp_path / "celery").write_text("#!/bin/sh\necho started $1 at $CELERY_BROKER_URL\n")
    (tmp_path / "celery").chmod(0o755)
    command = WORKER.final("flower").entrypoint[2:]

    def start_flower(**given: str) -> str:
        variables = {"PATH": f"{tmp_path}:{os.defpath}", **given}
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False).stdout

    return start_flower


@pytest.mark.parametrize("given", [{}, {"FLOWER_BASIC_AUTH": ""}], ids=["none", "empty"])
def test_flower_does_not_start_without_a_password(start_flower: Callable[..., str], given: dict[str, str]) -> None:
    assert start_flower(**given) == ""


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://redis:6379/0", "redis://redis:6379/0"),
        ("rediss://default:p%26w@redis:6379/0", "rediss://default:p%26w@redis:6379/0?ssl_cert_reqs=required"),
    ],
)
def test_flower_checks_the_certificate_of_a_redis_that_has_one(
    start_flower: Callable[..., str], url: str, found: str
) -> None:
    said = start_flower(FLOWER_BASIC_AUTH="a:b", CELERY_BROKER_URL=url)

    assert said == f"started flower at {found}\n"


def test_make_build_gives_each_image_its_name_version_and_revision(make: Make) -> None:
    told = make("-n", "build", "REGISTRY=registry.example.com/team/", "TAG=1.2.3", "TRACING=true")

    lines = told.stdout.splitlines()
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
    assert ["TRACING=true" in line for line in lines] == [True, True, False]


def test_make_push_asks_where_to(make: Make) -> None:
    done = make("push", "REGISTRY=", "DOCKER=true")

    assert done.returncode == 2
    assert "REGISTRY=" in done.stderr


def test_entrypoints_are_the_commands_of_the_readme() -> None:
    assert API.final().entrypoint[2:] == ["python", "-m", "api"]
    assert WORKER.final("worker").entrypoint[2:] == ["python", "-m", "workers"]
    assert json.dumps(WORKER.final("flower").entrypoint).count("--read-only") == 1
