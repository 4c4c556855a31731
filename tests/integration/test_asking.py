"""Readiness checks of local servers bypass proxies."""

from collections.abc import Iterator

import pytest

from dev.asking import answers
from dev.ports import free_port
from support.http_servers import Handler, LocalServer, serving


class Readiness(Handler):
    def answer(self) -> None:
        self.reply(200 if self.path == "/readyz" else 503)


@pytest.fixture
def url() -> Iterator[str]:
    with serving(LocalServer(Readiness)) as server:
        yield server.url


def test_proxy_of_the_environment_is_not_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)

    assert answers(f"{url}/readyz", within_s=20)


def test_error_status_and_closed_port_are_not_answers(url: str) -> None:
    assert not answers(f"{url}/elsewhere", within_s=20)
    assert not answers(f"http://127.0.0.1:{free_port()}/readyz", within_s=20)
