"""TLS certificates for servers on loopback."""

import shutil
import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path, name: str, alternative: str) -> Path:
    """Return a file with a key and its certificate; the certificate is also in a file of its own that ends in `.crt`.

    `alternative` is the subject's alternative name: "DNS:…" or "IP:…".
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    path = folder / "server.pem"
    certificate = path.with_suffix(".crt")
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}"]
    files = ["-keyout", str(path), "-out", str(certificate)]
    subprocess.run([openssl, *options.split(), *subject, *files], check=True, capture_output=True, timeout=30)
    path.write_bytes(path.read_bytes() + certificate.read_bytes())
    return path
