"""A certificate authority for one test run, and the certificate of all servers and clients of a cluster."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files in one folder, under the names that KEDA expects."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Return the certificate of the authority."""
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        """Return the certificate of all servers and clients."""
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        """Return the private key of the certificate; it also signs the tokens of service accounts."""
        return self.folder / "tls.key"


def make_certificates(folder: Path, *, names: Sequence[str] = ()) -> Certificates:
    """Create an authority, and a certificate for localhost and the other `names`."""
    folder.mkdir()
    certificates = Certificates(folder)
    authority_key = folder / "ca.key"
    alternative_names = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in ("localhost", *names))])
    _openssl(
        # Python 3.13 and later reject an authority without a key usage.
        *("-subj", "/CN=match-cluster", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", str(authority_key), "-out", str(certificates.authority)),
    )
    _openssl(
        *("-subj", "/CN=localhost", "-addext", f"subjectAltName={alternative_names}"),
        *("-addext", "extendedKeyUsage=serverAuth,clientAuth", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-CA", str(certificates.authority), "-CAkey", str(authority_key)),
        *("-keyout", str(certificates.key), "-out", str(certificates.certificate)),
    )
    return certificates


def _openssl(*arguments: str) -> None:
    openssl = shutil.which("openssl") or "openssl"
    subprocess.run([openssl, "req", "-x509", *KEY, *arguments], check=True, capture_output=True)
