"""API keys: a file of hashes that is read again when it changes and is never fatal at run time."""

import hashlib
import os
from pathlib import Path

import pytest

from api.access.keys import CHECK_EVERY_S, Keyring, Scope, parse
from api.new_key import new_key, table
from api.routes import ENDPOINTS, SUBJECTS
from api.routes.docs import FILES, endpoints
from common.config import Settings
from common.errors import ConfigError
from support.clocks import Clock
from support.commands import run_python


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(table("importer", ["read", "write"], "first"))
    return path


def test_a_key_is_found_with_its_name_and_scopes(file: Path) -> None:
    key = Keyring(file).find("first")

    assert key is not None
    assert (key.name, key.scopes) == ("importer", {Scope.READ, Scope.WRITE})


@pytest.mark.parametrize(
    ("collections", "allowed"),
    [
        ((), {"a", "default", "shop-1", "my-shop-1"}),
        (("a",), {"a"}),
        (("a", "shop-*"), {"a", "shop-1"}),
        (("*shop*",), {"shop-1", "my-shop-1"}),
    ],
)
def test_a_key_allows_its_collections_only(tmp_path: Path, collections: tuple[str, ...], allowed: set[str]) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(table("limited", ["read"], "first", collections))

    key = Keyring(file).find("first")

    assert key is not None
    assert {name for name in ("a", "default", "shop-1", "my-shop-1") if key.allows(name)} == allowed


@pytest.mark.parametrize("secret", ["", "First", "first ", "second", hashlib.sha256(b"first").hexdigest(), "ä\ud800"])
def test_invalid_keys_are_not_found(file: Path, secret: str) -> None:
    assert Keyring(file).find(secret) is None


def test_a_changed_file_is_read_within_a_second(file: Path, clock: Clock) -> None:
    keyring = Keyring(file, clock=clock)
    file.write_text(table("website", ["read"], "second"))
    clock.now += CHECK_EVERY_S

    key = keyring.find("second")

    assert key is not None
    assert key.name == "website"
    assert keyring.find("first") is None


def test_a_replaced_symbolic_link_is_followed(tmp_path: Path, clock: Clock) -> None:
    """Kubernetes writes a mounted Secret to a new folder and replaces a link atomically."""
    for version, secret in (("one", "first"), ("two", "second")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys.toml").write_text(table("a", ["read"], secret))
        os.utime(tmp_path / version / "keys.toml", (1, 1))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys.toml").symlink_to("..data/keys.toml")
    keyring = Keyring(tmp_path / "keys.toml", clock=clock)

    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "..data")
    clock.now += CHECK_EVERY_S

    assert keyring.find("second") is not None
    assert keyring.find("first") is None


@pytest.mark.parametrize("broken", [b"[[keys", b"", b"\xff", None])
def test_an_invalid_file_keeps_the_previous_keys_in_use(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture, broken: bytes | None
) -> None:
    keyring = Keyring(file, clock=clock)
    file.unlink() if broken is None else file.write_bytes(broken)

    for _ in range(61):
        clock.now += CHECK_EVERY_S
        assert keyring.find("first") is not None

    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "the previous keys stay in use" in caplog.text


def test_a_repaired_file_is_read(file: Path, clock: Clock) -> None:
    keyring = Keyring(file, clock=clock)
    file.write_text("broken")
    clock.now += CHECK_EVERY_S
    assert keyring.find("first") is not None

    file.write_text(table("website", ["read"], "second"))
    clock.now += CHECK_EVERY_S

    assert keyring.find("second") is not None
    assert keyring.find("first") is None


GOOD = 'name = "a"\nsha256 = "' + "0" * 64 + '"\nscopes = ["read"]\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"must contain \[\[keys\]\]"),
        ("[other]\n", r"must contain \[\[keys\]\]"),
        ("keys = []\n", r"must contain \[\[keys\]\]"),
        ("keys = [1]\n", "key 1 must have name, sha256 and scopes"),
        ("secret", "invalid TOML"),
        (f"[[keys]]\n{GOOD}more = 1\n", "and nothing else"),
        ("[[keys]]\n" + GOOD.replace('"a"', '"a b"'), "name must have"),
        ("[[keys]]\n" + GOOD.replace("0" * 64, "match_secret"), "64 hexadecimal digits"),
        ("[[keys]]\n" + GOOD.replace('["read"]', "[]"), "scopes must be some of read, write, admin"),
        ("[[keys]]\n" + GOOD.replace('"read"', '"root"'), "scopes must be"),
        (f"[[keys]]\n{GOOD}collections = []\n", "collections must be a list"),
        (f'[[keys]]\n{GOOD}collections = "a"\n', "collections must be a list"),
        (f'[[keys]]\n{GOOD}collections = ["secret!"]\n', "collections must have lowercase letters"),
        (f"[[keys]]\n{GOOD}collections = [1]\n", "collections must have lowercase letters"),
        (f"[[keys]]\n{GOOD}[[keys]]\n{GOOD}", "two keys have the same name"),
        (f"[[keys]]\n{GOOD}[[keys]]\n" + GOOD.replace('"a"', '"b"'), "two keys have the same sha256"),
    ],
)
def test_errors_in_the_file_quote_none_of_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        parse(text.encode())

    assert "secret" not in str(raised.value)


def test_a_missing_file_is_reported_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^MATCH_API_KEYS_FILE .*No such file"):
        Keyring(tmp_path / "nowhere")


def test_keys_are_256_random_bits() -> None:
    keys = {new_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(key.startswith("match_") and len(key) == len("match_") + 43 for key in keys)


def test_command_creates_a_key_and_its_entry(tmp_path: Path) -> None:
    limits = ("--collection", "a", "--collection", "shop-*")
    done = run_python("-m", "api.new_key", "importer", "read", "write", *limits)
    (tmp_path / "keys.toml").write_text(done.stdout)
    [secret] = [word for word in done.stderr.split() if word.startswith("match_")]

    key = Keyring(tmp_path / "keys.toml").find(secret)

    assert key is not None
    assert (key.name, key.scopes, key.collections) == ("importer", {"read", "write"}, ("a", "shop-*"))
    assert secret not in done.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["importer"], ["importer", "root"], ["a b", "read"], ["a", "read", "--collection", "A"]]
)
def test_command_rejects_other_arguments(arguments: list[str]) -> None:
    done = run_python("-m", "api.new_key", *arguments)

    assert done.returncode == 2
    assert done.stderr.startswith("usage:")
    assert done.stdout == ""


def test_every_endpoint_has_its_scope() -> None:
    """A new endpoint requires a new entry here."""
    scopes = {endpoint.name: endpoint.scope for endpoint in (*ENDPOINTS, *endpoints(SUBJECTS, Settings()))}

    assert scopes == {
        **dict.fromkeys(
            ("search", "compare", "count", "list", "images", "task", "tasks", "metrics", "thumbnail"), Scope.READ
        ),
        **dict.fromkeys(("collections", "collection"), Scope.READ),
        **dict.fromkeys(("batches", "one_batch"), Scope.READ),
        "cancel_batch": Scope.WRITE,
        "search_batch": Scope.READ,
        "patch_image": Scope.WRITE,
        **dict.fromkeys(("add", "batch", "delete", "cancel_task", "retry_task"), Scope.WRITE),
        **dict.fromkeys(("retry_tasks", "put_collection", "delete_collection", "usage"), Scope.ADMIN),
        **dict.fromkeys(("ping", "livez", "readyz", "docs", "openapi.json"), None),
        **dict.fromkeys((f"docs/{name}" for name in FILES), None),
    }
