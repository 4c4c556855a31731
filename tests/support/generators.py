"""Generators of clients: each makes a client of the service's description, which is compiled and used by a program.

The programs are in tests/generators/programs. No generator and no compiler has an option beyond input and output.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.go_builds import find_go, kept
from dev.locks import locked

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "generators" / "programs"
PACKAGES = ROOT / "tests" / "generators" / "npm"
# `make test` installs it.
ENVIRONMENT = ROOT / ".cache" / "generators" / "bin"
WITHIN_S = 240
TSC_OPTIONS = ("--strict", "--target", "es2022", "--module", "commonjs", "--esModuleInterop")
GO_MODULE_FOLDER = "match"


class Missing(Exception):
    """A program that the generator or its client needs is not on this machine."""


@dataclass(frozen=True, slots=True)
class Generator:
    """A generator: `make` returns the command of the program that uses its client in a folder.

    The command's arguments are the service's address, a collection, and, if `has_files`, a folder of images, and the
    origin of the same images.
    """

    name: str
    make: Callable[[Path, Path], Sequence[str]]
    has_files: bool = False


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Return the output of a command that must succeed."""
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, f"{command[0]}:\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def node_packages(name: str) -> Path:
    """Return the folder with the `node_modules` of a package file; the first call on a machine installs them."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise Missing(f"{name} needs Node.js with npm")
    source = PACKAGES / name
    digest = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = kept("match-npm") / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if not (folder / "installed").exists():
            for file in source.iterdir():
                shutil.copy(file, folder)
            run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
            (folder / "installed").touch()
    return folder


def python_program(name: str) -> Path:
    """Return a program of the generators' environment."""
    if not (ENVIRONMENT / name).exists():
        raise Missing(f"{name} is not installed: make test installs it into .cache/generators")
    return ENVIRONMENT / name


def openapi_python_client(description: Path, folder: Path) -> Sequence[str]:
    """Make a client in Python, check its types and those of its program."""
    generator = python_program("openapi-python-client")
    run([generator, "generate", "--path", description, "--output-path", folder / "made", "--meta", "none"], folder)
    return _python(folder, "openapi_python_client.py", "--strict")


def openapi_generator_python(description: Path, folder: Path) -> Sequence[str]:
    """Make a client in Python, check its types and those of its program."""
    _openapi_generator("python", description, folder)
    return _python(folder, "openapi_generator_python.py")


def openapi_generator_fetch(description: Path, folder: Path) -> Sequence[str]:
    """Make a client in TypeScript and compile it with its program."""
    _openapi_generator("typescript-fetch", description, folder / "made")
    return _typescript(folder, "openapi_generator_fetch", node_packages("openapi-fetch"))


def openapi_generator_go(description: Path, folder: Path) -> Sequence[str]:
    """Make a client in Go, check and build it with its program."""
    go = find_go()
    if go is None:
        raise Missing("openapi-generator's client in Go needs Go")
    _openapi_generator("go", description, folder)
    (folder / GO_MODULE_FOLDER).mkdir()
    shutil.copy(PROGRAMS / "openapi_generator_go.go", folder / GO_MODULE_FOLDER / "main.go")
    run([go, "vet", ".", f"./{GO_MODULE_FOLDER}"], folder)
    run([go, "build", "-o", "program", f"./{GO_MODULE_FOLDER}"], folder)
    return [str(folder / "program")]


def openapi_fetch(description: Path, folder: Path) -> Sequence[str]:
    """Make the types of openapi-typescript and compile them with a program that uses openapi-fetch."""
    packages = node_packages("openapi-fetch")
    generator = packages / "node_modules" / ".bin" / "openapi-typescript"
    run([generator, description, "-o", folder / "made" / "schema.d.ts"], folder)
    return _typescript(folder, "openapi_fetch", packages)


def hey_api(description: Path, folder: Path) -> Sequence[str]:
    """Make a client in TypeScript and compile it with its program."""
    packages = node_packages("hey-api")
    run([packages / "node_modules" / ".bin" / "openapi-ts", "-i", description, "-o", folder / "made"], folder)
    return _typescript(folder, "hey_api", packages)


def spectral(description: Path, folder: Path) -> str:
    """Return the report of Spectral with the rules of OpenAPI; fails if it has an error."""
    program = node_packages("spectral") / "node_modules" / ".bin" / "spectral"
    (folder / "ruleset.yaml").write_text('extends: ["spectral:oas"]\n')
    return run([program, "lint", "--ruleset", "ruleset.yaml", description], folder)


# Made and run in some seconds, without Java and Go.
QUICK = (
    Generator("openapi-python-client", openapi_python_client, has_files=True),
    Generator("openapi-fetch", openapi_fetch),
)
GENERATORS = (
    *QUICK,
    Generator("openapi-generator-python", openapi_generator_python, has_files=True),
    Generator("openapi-generator-typescript-fetch", openapi_generator_fetch),
    Generator("openapi-generator-go", openapi_generator_go, has_files=True),
    Generator("hey-api", hey_api),
)


def _openapi_generator(language: str, description: Path, folder: Path) -> None:
    generator = python_program("openapi-generator-cli")
    if shutil.which("java") is None:
        raise Missing("openapi-generator needs Java")
    run([generator, "generate", "-i", description, "-g", language, "-o", folder], folder.parent)


def _python(folder: Path, program: str, *options: str) -> Sequence[str]:
    shutil.copy(PROGRAMS / program, folder)
    run([python_program("mypy"), *options, program], folder)
    return [str(python_program("python")), "-W", "error", program]


def _typescript(folder: Path, program: str, packages: Path) -> Sequence[str]:
    shutil.copy(PROGRAMS / f"{program}.ts", folder)
    (folder / "node_modules").symlink_to(packages / "node_modules")
    run([packages / "node_modules" / ".bin" / "tsc", *TSC_OPTIONS, "--outDir", "js", f"{program}.ts"], folder)
    return ["node", f"js/{program}.js"]
