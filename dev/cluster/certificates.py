"""A certificate authority that lives for a test run, and the one certificate that every server of a cluster shows."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files in one folder, under the names that KEDA's programs look for."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Return what clients and servers trust."""
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        """Return who every server and client is."""
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        """Return the private key of the certificate; it signs service accounts' tokens as well."""
        return self.folder / "tls.key"


def make_certificates(folder: Path, *, names: Sequence[str] = ()) -> Certificates:
    """Write an authority, and by it a certificate for localhost and other `names`, for servers and clients."""
    folder.mkdir()
    made = Certificates(folder)
    authority_key = folder / "ca.key"
    known_as = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in ("localhost", *names))])
    _openssl(
        # Python 3.13 and later trust no authority without its key usage.
        *("-subj", "/CN=match-cluster", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", str(authority_key), "-out", str(made.authority)),
    )
    _openssl(
        *("-subj", "/CN=localhost", "-addext", f"subjectAltName={known_as}"),
        *("-addext", "extendedKeyUsage=serverAuth,clientAuth", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-CA", str(made.authority), "-CAkey", str(authority_key)),
        *("-keyout", str(made.key), "-out", str(made.certificate)),
    )
    return made


def _openssl(*arguments: str) -> None:
    openssl = shutil.which("openssl") or "openssl"
    subprocess.run([openssl, "req", "-x509", *KEY, *arguments], check=True, capture_output=True)
