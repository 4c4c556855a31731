"""The jars and the JDK that an Elasticsearch node is started with.

Maven downloads the jars that `dev/elasticsearch/pom.xml` names, once, into `$MATCH_CACHE` or `.cache`.
"""

import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from dev.locks import locked

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "dev" / "elasticsearch"
PLUGIN = "transport-netty4"
JDK_MIN = 21


def jars() -> Path:
    """Return the folder of the node's jars; the first call on a machine downloads them (40 MB)."""
    pom = (RECIPE / "pom.xml").read_text()
    version: str = re.findall(r"<elasticsearch.version>(.+)</elasticsearch.version>", pom)[0]
    cache = Path(os.environ.get("MATCH_CACHE", ROOT / ".cache")).resolve() / "elasticsearch"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / ".lock"):
        if not (cache / version).exists():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                _fetch_jars(Path(work))
                (Path(work) / "node").rename(cache / version)
    return cache / version


def _fetch_jars(work: Path) -> None:
    lib, module = work / "node" / "lib", work / "node" / "modules" / PLUGIN
    maven = shutil.which("mvn") or "mvn"
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={lib}"]
    result = subprocess.run(
        [maven, "-q", "-B", "-f", str(RECIPE / "pom.xml"), *goal], check=False, capture_output=True, text=True
    )
    if result.returncode:
        message = f"Maven could not download Elasticsearch's jars:\n{result.stdout[-2000:]}"
        raise RuntimeError(message)
    module.mkdir(parents=True)
    for jar in [*lib.glob("netty-*.jar"), *lib.glob(f"{PLUGIN}-*.jar")]:
        jar.rename(module / jar.name)
    with zipfile.ZipFile(next(module.glob(f"{PLUGIN}-*.jar"))) as archive:
        descriptor = archive.read(f"META-INF/es-plugins/{PLUGIN}/plugin-descriptor.properties").decode()
    # Without a module name the plugin is loaded from the class path: this node has no module layer.
    (module / "plugin-descriptor.properties").write_text(re.sub(r"(?m)^modulename=.*$", "", descriptor))


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
    """Return the major version, 0 for a folder without a compiler: Launch.java is compiled at its start."""
    release = home / "release"
    if not (home / "bin" / "javac").exists() or not release.exists():
        return 0
    version = re.search(r'JAVA_VERSION="(\d+)', release.read_text())
    return int(version[1]) if version else 0
