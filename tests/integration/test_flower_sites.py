"""flower with our configuration: pages of other sites, and unknown host names."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import NoReturn

import pytest
import requests

from common.config import Settings
from dev.asking import answers
from dev.ports import free_port
from dev.redis_server import RedisServer
from dev.stack import flower
from support.browsers import chromium
from support.http_servers import Handler, LocalServer, serving
from support.processes import running
from support.waiting import wait_until


class Evil(Handler):
    """A page of another site with a form."""

    def answer(self) -> None:
        self.reply(body=b"<!doctype html><form method=post></form>", headers={"Content-Type": "text/html"})


@pytest.fixture(scope="module")
def origin(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A flower as `make dev` starts it."""
    port = free_port()
    program = flower(replace(Settings(), redis_url=redis_server.url), port)
    log = tmp_path_factory.mktemp("flower") / "flower.log"
    with running(*program.command[1:], environment=program.environment, log=log):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthcheck", within_s=5), "flower answers")
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:5555"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": ""}, 403),
    ],
)
def test_requests_of_other_sites_are_refused(origin: str, headers: dict[str, str], status: int) -> None:
    assert requests.get(f"{origin}/workers", headers=headers, timeout=60).status_code == status


def test_probe_answers_every_host(origin: str) -> None:
    assert requests.get(f"{origin}/healthcheck", headers={"Host": "evil.example"}, timeout=60).status_code == 200


def test_no_site_uses_flower_through_a_browser(origin: str, give_up: Callable[[str], NoReturn]) -> None:
    form = f"const f = document.forms[0]; f.action = '{origin}/api/workers'; f.submit()"
    fetch = f"fetch('{origin}/api/workers', {{mode: 'no-cors'}}).catch(() => null)"
    rebound = origin.replace("127.0.0.1", "flower.rebound.example")
    statuses: list[int] = []

    with (
        chromium(give_up, "--host-resolver-rules=MAP *.rebound.example 127.0.0.1") as browser,
        serving(LocalServer(Evil)) as evil,
        closing(browser.new_context()) as context,
    ):
        for script in (form, fetch):
            page = context.new_page()
            page.goto(evil.url)
            with page.expect_response(f"{origin}/api/workers") as response:
                page.evaluate(script)
            statuses.append(response.value.status)
        statuses += [
            response.status
            for address in (f"{rebound}/workers", f"{origin}/workers")
            if (response := context.new_page().goto(address)) is not None
        ]

    assert statuses == [403, 403, 403, 200]
