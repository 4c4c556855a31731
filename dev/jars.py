"""The jars of search servers, and the JDK that starts them.

Maven downloads the jars that a recipe's `pom.xml` names, once, into `$MATCH_CACHE` or `.cache`. Their hashes are those
in the recipe's `jars.sha256`.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dev.locks import locked

ROOT = Path(__file__).parent.parent
# Java that all recipes share.
SHARED = ROOT / "dev" / "java"
JDK_MIN = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Jars:
    """The jars of one server, of the version in its recipe.

    `arrange` turns the downloaded jars in `lib` of its folder into the folder that the server needs. The sources are
    Launch.java, which starts a node, Lifetime.java and those in `stubs`; they become a jar in `lib`. `launch` is the
    folder of Launch.java, if another recipe has it.
    """

    product: str
    recipe: Path
    arrange: Callable[[Path], None] = lambda _: None
    launch: Path | None = None

    def why_not(self) -> str:
        """Return in one line what is missing to start a node, an empty string if nothing is."""
        if shutil.which("mvn") is None:
            return f"{self.product}'s jars need Maven: no mvn on PATH"
        if java() is None:
            return f"{self.product} needs JDK {JDK_MIN} or later: none in JAVA_HOME, /usr/lib/jvm or on PATH"
        return ""

    def folder(self) -> Path:
        """Return the folder of the jars; the first call on a machine downloads and compiles them."""
        name = self.recipe.name
        pom = (self.recipe / "pom.xml").read_text()
        version: str = re.findall(rf"<{name}.version>(.+)</{name}.version>", pom)[0]
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in self._sources())).hexdigest()
        cache = Path(os.environ.get("MATCH_CACHE", ROOT / ".cache")).resolve() / name
        cache.mkdir(parents=True, exist_ok=True)
        folder = cache / f"{version}-{digest[:8]}"
        with locked(cache / ".lock"):
            if not folder.exists():
                with tempfile.TemporaryDirectory(dir=cache) as work:
                    node = Path(work) / "node"
                    self._download(node / "lib")
                    self.arrange(node)
                    self._compile(node / "lib", Path(work) / "classes")
                    node.rename(folder)
        return folder

    def _sources(self) -> list[Path]:
        launch = (self.launch or self.recipe) / "Launch.java"
        return [launch, SHARED / "Lifetime.java", *sorted((self.recipe / "stubs").glob("*.java"))]

    def _compile(self, lib: Path, classes: Path) -> None:
        """Compile our own sources into a jar beside the others."""
        tools = Path(str(java())).parent
        compiler = [str(tools / "javac"), "-proc:none", "-nowarn", "-cp", f"{lib}/*", "-d", str(classes)]
        subprocess.run([*compiler, *map(str, self._sources())], check=True)
        subprocess.run([str(tools / "jar"), "cf", str(lib / "launch.jar"), "-C", str(classes), "."], check=True)

    def _download(self, lib: Path) -> None:
        maven = shutil.which("mvn") or "mvn"
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={lib}"]
        result = subprocess.run(
            [maven, "-q", "-B", "-f", str(self.recipe / "pom.xml"), *goal], check=False, capture_output=True, text=True
        )
        if result.returncode:
            message = f"Maven could not download {self.product}'s jars:\n{result.stdout[-2000:]}"
            raise RuntimeError(message)
        check_hashes(lib, self.recipe / "jars.sha256")


def check_hashes(lib: Path, hashes: Path) -> None:
    """Raise RuntimeError unless the folder has exactly these files; lines are as sha256sum prints them."""
    expected = set(hashes.read_text().splitlines())
    actual = {f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in lib.iterdir()}
    if different := sorted(line.split()[1] for line in expected ^ actual):
        message = f"other files than in {hashes}: {', '.join(dict.fromkeys(different))}"
        raise RuntimeError(message)


def java() -> Path | None:
    """Return `java` of the newest JDK, None if none is new enough."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    homes += Path("/usr/lib/jvm").glob("*")
    if on_path := shutil.which("javac"):
        homes.append(Path(on_path).resolve().parent.parent)
    versions = {home: _jdk_version(home) for home in homes}
    newest = max(homes, key=lambda home: versions[home], default=None)
    return newest / "bin" / "java" if newest and versions[newest] >= JDK_MIN else None


def _jdk_version(home: Path) -> int:
    """Return the major version, 0 for a folder without a compiler, which Launch.java needs."""
    release = home / "release"
    if not (home / "bin" / "javac").exists() or not release.exists():
        return 0
    version = re.search(r'JAVA_VERSION="(\d+)', release.read_text())
    return int(version[1]) if version else 0
