"""Lua scripts: each key and argument reaches the name that the script declares."""

import re
from pathlib import Path

import pytest
from redis import Redis

from common.queue.keys import SCRIPT_KEYS
from common.redis.scripts import Script, read

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "common").glob("*/lua/*.lua"))
ECHO = """
local first_key = KEYS[1]
local second_key = KEYS[2]
local name = ARGV[1] -- a comment
local number = tonumber(ARGV[2])
local ids_from = 3
return {first_key, second_key, name, number, unpack(ARGV, ids_from)}
"""


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    path = tmp_path / "echo.lua"
    path.write_text(ECHO)
    return path


def test_values_go_to_the_names_in_the_script(fake_redis: Redis, echo: Path) -> None:
    script = Script(fake_redis, echo, {"second_key": "two", "number": 7, "unused_key": "none"})

    reply = script("x", "y", name="n", first_key="one")

    assert reply == [b"one", b"two", b"n", 7, b"x", b"y"]


def test_a_pipeline_gets_the_same_values(fake_redis: Redis, echo: Path) -> None:
    script = Script(fake_redis, echo, {"second_key": "two", "number": 7})
    pipe = fake_redis.pipeline(transaction=False)

    script.queue_in(pipe, name="n", first_key="one")

    assert pipe.execute() == [[b"one", b"two", b"n", 7]]


@pytest.mark.parametrize("values", [{"name": "n"}, {"name": "n", "first_key": "one", "other": 1}])
def test_missing_and_unknown_names_are_errors(fake_redis: Redis, echo: Path, values: dict[str, str]) -> None:
    script = Script(fake_redis, echo, {"second_key": "two", "number": 7})

    with pytest.raises(TypeError, match="first_key"):
        script(**values)


def test_further_arguments_need_a_script_that_takes_them(fake_redis: Redis, tmp_path: Path) -> None:
    path = tmp_path / "one.lua"
    path.write_text("local name = ARGV[1]\nreturn name\n")
    script = Script(fake_redis, path)

    with pytest.raises(TypeError, match="further"):
        script("more", name="n")


@pytest.mark.parametrize(
    "text",
    [
        "local one = KEYS[2]\n",
        "local one = ARGV[1]\nlocal two = ARGV[1]\n",
        "local one = ARGV[1]\nlocal ids_from = 3\n",
    ],
)
def test_names_out_of_order_are_errors(fake_redis: Redis, tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.lua"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"in order|begin at"):
        Script(fake_redis, path)


def test_a_file_is_included_once(tmp_path: Path) -> None:
    (tmp_path / "one.lua").write_text("local one = 1\n")
    (tmp_path / "two.lua").write_text('--- @include "one.lua"\nlocal two = 2\n')
    path = tmp_path / "both.lua"
    path.write_text('--- @include "two.lua"\n--- @include "one.lua"\nreturn one + two\n')

    text = read(path)

    assert text.count("local one") == 1
    assert text.index("local one") < text.index("local two") < text.index("return")


def test_key_names_stay_out_of_the_scripts() -> None:
    files = [path.stem for path in FILES if re.search(r"['\"]match:", path.read_text())]

    # The script declares a key that has no value.
    assert files == ["allow_oom"]


def test_every_name_of_a_key_is_used() -> None:
    text = "".join(path.read_text() for path in FILES)

    assert [name for name in SCRIPT_KEYS if name not in text] == []
