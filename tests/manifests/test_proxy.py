"""The proxy's configuration: nginx accepts it, and its limits and errors equal the API's."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import requests

from api import web
from api.access.headers import SECURITY
from api.endpoints import Endpoint, max_body_bytes
from api.errors import ERRORS
from api.routes import ENDPOINTS
from common.config import Settings
from dev.proxy import Proxy, why_not
from support.certificates import self_signed
from support.http_servers import Handler, LocalServer, serving

PROXY = Path(__file__).resolve().parents[2] / "proxy"
UNITS = {"k": 1024, "m": 1024 * 1024}
LOCATION = re.compile(r"^ {8}location ~ (\S+) \{\s+client_max_body_size (\d+)(\w);", re.MULTILINE)
DEFAULT = re.compile(r"^ {8}client_max_body_size (\d+)(\w);", re.MULTILINE)
CERTIFICATE = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=match.example.com")


class Api(Handler):
    """An API that answers every request with an empty 200."""

    def answer(self) -> None:
        """Answer the request."""
        self.reply()


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A copy of the configuration for Debian's nginx, which lacks a directive, and for hosts without a resolver."""
    copy = shutil.copytree(PROXY, tmp_path / "proxy")
    (copy / "upstream.conf").write_text("server 127.0.0.1:8888;\n")
    (copy / "listen.conf").write_text(older(PROXY / "listen.conf"))
    return copy


def older(file: Path) -> str:
    """Return the file without the directive that nginx 1.22 of Debian 12 lacks."""
    return file.read_text().replace("keepalive_min_timeout 5s;\n", "")


def check(configuration: Path, give_up: Callable[[str], NoReturn]) -> str:
    """Return the errors of nginx about the configuration."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        give_up("nginx is not installed (Debian: nginx-light)")
    command = [nginx, "-q", "-e", "stderr", "-p", configuration.parent, "-c", configuration / "nginx.conf", "-t"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("keys", ["", "keys/"])
def test_nginx_accepts_the_configuration(configuration: Path, give_up: Callable[[str], NoReturn], keys: str) -> None:
    shutil.copy(PROXY / keys / "auth.conf", configuration / "auth.conf")

    assert check(configuration, give_up) == ""


def test_nginx_accepts_the_configuration_of_a_gateway(configuration: Path, give_up: Callable[[str], NoReturn]) -> None:
    shutil.copy(PROXY.parent / "k8s/components/real-ip/real_ip.conf", configuration)
    shutil.copy(PROXY.parent / "k8s/base/upstream.conf", configuration)

    assert check(configuration, give_up) == ""


def test_nginx_accepts_the_configuration_with_tls(configuration: Path, give_up: Callable[[str], NoReturn]) -> None:
    openssl = shutil.which("openssl") or give_up("openssl is not installed")
    subprocess.run(
        [openssl, *CERTIFICATE, "-keyout", "tls.key", "-out", "tls.crt"],
        cwd=configuration,
        capture_output=True,
        check=True,
    )
    listen = older(PROXY / "tls/listen.conf").replace("/run/tls", str(configuration))
    (configuration / "listen.conf").write_text(listen)

    assert check(configuration, give_up) == ""


def test_an_unknown_directive_is_rejected(configuration: Path, give_up: Callable[[str], NoReturn]) -> None:
    (configuration / "listen.conf").write_text("listen_on 8080;\n")

    assert 'unknown directive "listen_on"' in check(configuration, give_up)


@pytest.mark.parametrize(
    "endpoint",
    [*ENDPOINTS, *(each for each in web.ENDPOINTS if "POST" in each.methods)],
    ids=lambda endpoint: endpoint.name,
)
def test_body_limits_equal_the_apis(endpoint: Endpoint) -> None:
    text = (PROXY / "nginx.conf").read_text()
    limits = [(pattern, int(size) * UNITS[unit]) for pattern, size, unit in LOCATION.findall(text)]
    size, unit = DEFAULT.findall(text)[0]

    limit = next((limit for pattern, limit in limits if re.match(pattern, endpoint.path)), int(size) * UNITS[unit])

    assert limit == max_body_bytes(endpoint, Settings())


def test_errors_of_nginx_have_the_apis_headers() -> None:
    text = (PROXY / "nginx.conf").read_text()

    added = dict(re.findall(r'add_header (\S+) "?(.+?)"? always;', text))

    assert SECURITY.items() <= added.items()
    assert "X-Request-ID" in added


@pytest.mark.parametrize("path", ["/ping", "/_authorize"])
def test_nginx_announces_https_only_over_https(tmp_path: Path, give_up: Callable[[str], NoReturn], path: str) -> None:
    if reason := why_not():
        give_up(reason)
    certificate = self_signed(tmp_path, "localhost", "IP:127.0.0.1")

    with serving(LocalServer(Api)) as api, Proxy(tmp_path / "plain", [api.server_port]) as plain:
        over_http = requests.get(plain.url + path, timeout=10)
    with (
        serving(LocalServer(Api)) as api,
        Proxy(tmp_path / "tls", [api.server_port], certificate=certificate) as secure,
    ):
        over_https = requests.get(secure.url + path, timeout=10, verify=certificate.with_suffix(".crt"))

    assert over_https.status_code == over_http.status_code == (200 if path == "/ping" else 404)
    assert "Strict-Transport-Security" not in over_http.headers
    assert over_https.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_errors_of_nginx_are_declared_by_the_api() -> None:
    replies = re.findall(r"return (\d+) '(.+)';", (PROXY / "nginx.conf").read_text())

    assert len(replies) > 5
    for status, body in replies:
        reply = json.loads(body)
        spec = ERRORS[reply["code"]]
        assert reply.keys() == {"method", "status", "error", "result", "code"}
        assert int(status) in spec.statuses
        # The API's text of too_large also describes images and forms.
        assert reply["error"] == [spec.text] or reply["code"] == "too_large"


def test_the_ingress_accepts_the_largest_body() -> None:
    ingress = (PROXY.parent / "k8s/components/ingress/ingress.yaml").read_text()
    largest = max(max_body_bytes(endpoint, Settings()) for endpoint in ENDPOINTS)

    [(size, unit)] = re.findall(r"proxy-body-size: (\d+)(\w)", ingress)

    assert int(size) * UNITS[unit] == largest
