"""Signatures of webhooks by Standard Webhooks; errors for invalid secrets do not contain them."""

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from common.config import Settings
from common.errors import ConfigError
from common.net.webhook_signing import signed_headers

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLDER = "whsec_" + base64.b64encode(bytes(range(24, 48))).decode()


def test_a_signature_is_that_of_the_specification() -> None:
    # Computed once by `openssl dgst -sha256 -mac HMAC`, over msg_1.1700000000.{} with that key.
    expected = "fhksJF5ElKjlPoT/jtefCO5XjQPvhf7Dhf/8R1ad9yU="

    headers = signed_headers([SECRET], id_="msg_1", timestamp=1_700_000_000, body=b"{}")

    assert headers == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,{expected}",
    }


def test_each_secret_signs_the_body() -> None:
    headers = signed_headers([SECRET, OLDER], id_="msg_1", timestamp=7, body=b"body")

    first, second = headers["webhook-signature"].split(" ")
    own = [hmac.new(key, b"msg_1.7.body", hashlib.sha256).digest() for key in (bytes(range(32)), bytes(range(24, 48)))]
    assert [base64.b64decode(one.removeprefix("v1,")) for one in (first, second)] == own


@pytest.mark.parametrize("text", ["whsec_c2hvcnQ=", "whsec_" + "A" * 200, "whsec_not base64 at all", ","])
def test_invalid_secrets_are_rejected_without_being_quoted(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"MATCH_WEBHOOK_SECRET": text})

    assert str(caught.value).startswith("MATCH_WEBHOOK_SECRET must contain secrets of the form whsec_")
    assert "c2hvcnQ" not in str(caught.value)


def test_secrets_are_read_from_variable_or_file(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"{SECRET}\n{OLDER}\n")

    by_variable = Settings.from_env({"MATCH_WEBHOOK_SECRET": f"{SECRET}, {OLDER}"})
    by_file = Settings.from_env({"MATCH_WEBHOOK_SECRET_FILE": f"{file}"})

    assert by_variable.webhook_secrets == by_file.webhook_secrets == (SECRET, OLDER)
    assert SECRET not in f"{by_variable}{by_file}"


def test_secrets_from_variable_and_file_conflict(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(SECRET)

    with pytest.raises(ConfigError, match="cannot be combined with"):
        Settings.from_env({"MATCH_WEBHOOK_SECRET": SECRET, "MATCH_WEBHOOK_SECRET_FILE": f"{file}"})


def test_an_unreadable_file_of_secrets_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a readable file of secrets"):
        Settings.from_env({"MATCH_WEBHOOK_SECRET_FILE": f"{tmp_path / 'nowhere'}"})
